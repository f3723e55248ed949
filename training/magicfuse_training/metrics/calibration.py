# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures whether the confidence tells how often the mask is right."""

from __future__ import annotations

import numpy as np

from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_training.arrays import F64, U8, Mask
from magicfuse_training.metrics.bootstrap import figure_of, share
from magicfuse_training.metrics.frames import Frame, given

BINS = 15


def bins_of(confidence: U8, right: Mask) -> F64:
    """Count pixels by confidence: 0 to 255 and whether right, each (N,), to (3, BINS).

    The rows are the number of pixels, the number of right ones, and the sum of their confidence (0
    to 1). All bins are equally wide.
    """
    place = np.minimum(confidence.astype(np.int64) * BINS // 255, BINS - 1)
    weights = (None, right.astype(np.float64), confidence / 255)
    return np.array([np.bincount(place, w, minlength=BINS) for w in weights], np.float64)


def calibration_error(bins: F64) -> F64:
    """Return the expected calibration error, 0 to 100 %: (..., 3, BINS) to (...); 0 is best.

    It is the mean over pixels of |share of right pixels - mean confidence| of their bin (arXiv
    1706.04599). NaN without a pixel.
    """
    count, right, confidence = (bins[..., i, :] for i in range(3))
    return 100 * share(np.abs(right - confidence).sum(-1), count.sum(-1))


class Calibration:
    """The confidence on pixels with a known class; sets of classes and pseudo labels do not count.

    ece_percent   see `calibration_error`
    reliability   by bin of the confidence, from the lowest: number of pixels, their mean
                  confidence, and the share of them with the right class, 0 to 1; null without a
                  pixel
    """

    outputs: frozenset[Output] = frozenset({"mask", "confidence"})

    def __init__(self, classes: int) -> None:
        """Store the number of the bundle's classes."""
        self.classes = classes
        self._bins: list[F64] = []

    def applies(self, frame: Frame) -> bool:
        """Return whether people drew the label."""
        return frame.drawn

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Count the pixels of one frame."""
        label = given(frame.label)
        known = label < self.classes
        right = given(fused.mask)[known] == label[known]
        self._bins.append(bins_of(given(fused.confidence)[known], right))

    def scores(self) -> dict[str, object]:
        """Return the calibration error and its parts."""
        if not self._bins:
            return {}
        pixels, right, confidence = np.sum(self._bins, axis=0)
        return {
            "ece_percent": figure_of(self._bins, calibration_error),
            "reliability": {
                "pixels": pixels.astype(int).tolist(),
                "confidence": share(confidence, pixels).tolist(),
                "right": share(right, pixels).tolist(),
            },
        }
