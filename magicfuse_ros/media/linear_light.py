"""sRGB codes and linear light: exposure, haze and photon noise add up in linear light only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Linear = npt.NDArray[np.float32]

_CODE = np.arange(256) / 255.0
_TO_LINEAR = np.where(_CODE <= 0.04045, _CODE / 12.92, ((_CODE + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
_LEVELS = 8191  # fine enough to keep the darkest sRGB codes apart
_VALUE = np.arange(_LEVELS + 1) / _LEVELS
_TO_SRGB = np.round(
    255 * np.where(_VALUE <= 0.0031308, _VALUE * 12.92, 1.055 * _VALUE ** (1 / 2.4) - 0.055)
).astype(np.uint8)


def to_linear(image: Image) -> Linear:
    """Decode sRGB: uint8 to linear light, float32 in [0, 1], same shape."""
    return _TO_LINEAR[image]


def to_srgb(linear: Linear) -> Image:
    """Encode linear light as sRGB uint8; values outside [0, 1] are clipped, as a sensor does."""
    return _TO_SRGB[(np.clip(linear, 0.0, 1.0) * _LEVELS + 0.5).astype(np.int16)]
