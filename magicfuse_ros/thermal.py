"""The decoded image of the thermal stream: the estimate in it, and how sure the estimate is.

The estimate is the luma of that image. Where the bundle has `thermal_uncertainty`, it is the red
channel, and the blue channel codes the scale of the estimate's error: see `ThermalUncertainty`.
"""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.bundle import ThermalUncertainty
from magicfuse_ros.outputs import Output

_RED, _BLUE = 0, 2
_WHITE = 255


class ThermalReader:
    """Reads the thermal outputs from the decoded image."""

    def __init__(self, coding: ThermalUncertainty | None) -> None:
        """Take how the bundle codes the scale of the error; None: it does not."""
        self._deviations = None if coding is None else standard_deviations(coding)

    def __call__(
        self, image: npt.NDArray[np.uint8], outputs: Collection[Output]
    ) -> dict[str, npt.NDArray[np.uint8]]:
        """Return those of `thermal_estimate` and `thermal_uncertainty` that are in `outputs`.

        Args:
            image: [H, W, 3] uint8, as decoded.
            outputs: with `thermal_uncertainty` only where the bundle has it.

        Returns:
            By output: [H, W] uint8, gray levels 0 to 255.
        """
        found: dict[str, npt.NDArray[np.uint8]] = {}
        if "thermal_estimate" in outputs:
            coded = self._deviations is not None
            gray = cv2.extractChannel(image, _RED) if coded else _luma(image)
            found["thermal_estimate"] = np.asarray(gray, np.uint8)
        if "thermal_uncertainty" in outputs:
            assert self._deviations is not None  # `check_outputs` refuses it otherwise
            codes = cv2.extractChannel(image, _BLUE)
            found["thermal_uncertainty"] = np.asarray(cv2.LUT(codes, self._deviations), np.uint8)
        return found


def standard_deviations(coding: ThermalUncertainty) -> npt.NDArray[np.uint8]:
    """Return the standard deviation for each code 0 to 255: [256] uint8, gray levels, at most 255.

    A Laplace distribution of scale b has the standard deviation sqrt(2) b.
    """
    codes = np.arange(256) / 255
    scales = coding.lowest * (coding.highest / coding.lowest) ** codes
    deviations = np.rint(_WHITE * np.sqrt(2) * scales)
    return np.asarray(np.minimum(deviations, _WHITE), np.uint8)


def _luma(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
