"""Shared parts of all degradations: strengths and parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from magicfuse_ros.media.linear_light import Image

Rows = tuple[float, float]
T = TypeVar("T", bound="Effect")
WHOLE: Rows = (0.0, 1.0)

Color = tuple[
    Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]
]
Grid = Annotated[tuple[tuple[float, ...], ...], Field(min_length=1)]


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
