"""Shared parts of all degradations: strengths, parameters, linear light."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Image = npt.NDArray[np.uint8]
Linear = npt.NDArray[np.float32]
Rows = tuple[float, float]
T = TypeVar("T", bound="Effect")
WHOLE: Rows = (0.0, 1.0)

Color = tuple[
    Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]
]
Grid = Annotated[tuple[tuple[float, ...], ...], Field(min_length=1)]

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


class Effect(BaseModel, ABC):
    """Physical parameters of one effect; a value out of range raises pydantic.ValidationError.

    `draw` chooses them for a strength, `apply` uses them. Frames of a video share one record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def draw(cls: type[T], strength: float, rng: np.random.Generator) -> T:
        """Draw parameters for a strength from 0 (mild) to 1 (severe).

        Raises:
            ValueError: for a strength outside [0, 1].
        """
        check_strength(strength)
        return cls._draw(strength, rng)

    @classmethod
    @abstractmethod
    def _draw(cls: type[T], strength: float, rng: np.random.Generator) -> T: ...

    @abstractmethod
    def apply(self, image: Image, noise: np.random.Generator, rows: Rows = WHOLE) -> Image:
        """Return a new degraded image.

        Args:
            image: RGB (H, W, 3) uint8.
            noise: draws what differs from frame to frame: photons, rain drops.
            rows: first and last row that a crop shows, as fractions of the camera's full height.
        """


def check_strength(strength: float) -> None:
    """Raise ValueError for a strength outside [0, 1]."""
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength}; expected 0 to 1")
