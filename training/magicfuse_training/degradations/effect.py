# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Shared parts of all degradations: strengths and parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, TypeVar

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from magicfuse_ros.image_codec import Pixels

Rows = tuple[float, float]
T = TypeVar("T", bound="Effect")
WHOLE: Rows = (0.0, 1.0)

LinearColor = tuple[
    Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]
]
Grid = Annotated[tuple[tuple[float, ...], ...], Field(min_length=1)]
CUT = (12, 16)  # cells of a grid that was cut


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

    def cut(self: T, rows: Rows, columns: Rows) -> T:
        """Return the effect for a crop: what is coarse in a frame is coarser still in its crops.

        Args:
            rows: first and last row that the crop shows, as fractions of the frame's height.
            columns: the same of its columns.
        """
        return self

    @abstractmethod
    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """Return a new degraded image.

        Args:
            image: RGB (H, W, 3) uint8.
            noise: draws what differs from frame to frame: photons, rain drops.
            rows: first and last row that a crop shows, as fractions of the camera's full height.
        """


def cut_grid(grid: Grid, rows: Rows, columns: Rows) -> Grid:
    """Return the part of a frame's grid that a crop shows, interpolated as `cv2.resize` does."""
    whole = np.array(grid, np.float32)
    y, x = (
        (first + (np.arange(n, dtype=np.float32) + 0.5) / n * (last - first)) * cells - 0.5
        for (first, last), n, cells in zip((rows, columns), CUT, whole.shape, strict=True)
    )
    x, y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    part = cv2.remap(whole, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return tuple(map(tuple, part.tolist()))


def check_strength(strength: float) -> None:
    """Raise ValueError for a strength outside [0, 1]."""
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength}; expected 0 to 1")
