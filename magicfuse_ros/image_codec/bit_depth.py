# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Finds how many of 16 bits a camera's pixels use: many sensors deliver 10, 12 or 14."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
import numpy.typing as npt

DEPTHS = (10, 12, 14, 16)
_JUDGED = 10  # latest images
_DOUBTED = 2  # of them


class BitDepth:
    """Converts the 16-bit images of one camera to 8 bits, all of them on the same scale.

    The first image decides at once: the depth is the smallest of `DEPTHS` that holds 99.9 % of its
    pixels, because single damaged pixels must not darken a camera. Nor must a torn image: the depth
    increases only if three of the latest ten images need more, and brighter pixels become white
    until then. Three in a row would be too strict, because some cameras alternate two exposures.
    The depth never decreases: a scale that followed each image's own maximum would make a video
    flicker.

    Attributes:
        bits: the depth in use; 0 before the first 16-bit image.
    """

    def __init__(self, bits: int = 0, *, intact: bool = False) -> None:
        """Start with a known depth, or find it.

        Args:
            bits: a depth of 1 to 16 bits that the user knows; 0: find it.
            intact: no image is torn, as in files that were kept: each one counts at once.
        """
        self.bits = bits
        self._fixed = bits > 0
        self._doubted = 0 if intact else _DOUBTED
        self._needed = deque([0] * _JUDGED, maxlen=_JUDGED)  # bits of the latest images

    def __str__(self) -> str:
        """Describe the depth in words; empty before the first 16-bit image."""
        return f"{self.bits} of 16" if self.bits else ""

    def to_8_bits(self, values: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Return values of any shape and byte order as uint8; values above the depth become 255."""
        if not self._fixed and values.size:
            self._judge(values)
        most = (1 << self.bits) - 1
        if self.bits < 16:
            values = np.minimum(values, np.uint16(most))
        if 0 < self.bits < 8:
            return np.asarray(values.astype(np.uint32) * 255 // most, np.uint8)
        return np.asarray(values >> max(0, self.bits - 8)).astype(np.uint8)

    def _judge(self, values: npt.NDArray[np.uint16]) -> None:
        needed = 0
        if values.max() >> self.bits:
            fitting = (depth for depth in DEPTHS[:-1] if _few_above(values, 1 << depth))
            needed = next(fitting, DEPTHS[-1])
        self._needed.append(needed)
        agreed = sorted(self._needed, reverse=True)[self._doubted]
        self.bits = max(self.bits, agreed) if self.bits else needed


def _few_above(values: npt.NDArray[np.uint16], limit: int) -> bool:
    return bool(np.count_nonzero(values >= limit) <= values.size // 1000)


def scaled(values: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Scale numbers of any type to uint8: `low` and below become 0, `high` and above become 255."""
    factor = 255.0 / max(high - low, 1e-9)
    levels = (values.astype(np.float32) - np.float32(low)) * np.float32(factor)
    return np.asarray(cv2.convertScaleAbs(np.maximum(levels, 0)), np.uint8)
