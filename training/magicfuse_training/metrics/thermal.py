# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Compares the thermal estimate with the real thermal image of the same scene."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_training.arrays import F64, U8, Mask
from magicfuse_training.metrics.bootstrap import figures_of
from magicfuse_training.metrics.frames import Frame, given
from magicfuse_training.metrics.images import Constants, luma, psnr, ssim

LEAST_DEVIATION = 0.5  # gray levels: the output has integer levels
INTERVALS = (50, 90)  # percent


def correlation(a: U8, b: U8) -> float:
    """Return Pearson's correlation of the pixels of two gray images (H, W), -1 to 1.

    Level and gain of either do not matter. Return 0 if one of them is constant.
    """
    x, y = (image.astype(np.float64) - image.mean() for image in (a, b))
    norm = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / norm) if norm > 0 else 0.0


def needed_interval(estimate: U8, deviation: U8, real: U8) -> F64:
    """Return the content, 0 to 100 %, of the smallest stated interval around the real level (H, W).

    If the stated uncertainty is right, `percent` of the pixels need an interval of at most
    `percent`.

    Args:
        estimate: gray levels (H, W).
        deviation: standard deviation of its error, gray levels (H, W), for a normal distribution:
            50 % lie within 0.67 and 90 % within 1.64 standard deviations to each side.
        real: gray levels (H, W).
    """
    error = np.abs(estimate.astype(np.float64) - real) / np.maximum(deviation, LEAST_DEVIATION)
    return np.asarray(100 * torch.erf(torch.from_numpy(error / np.sqrt(2))).numpy(), np.float64)


def coverage(estimate: U8, deviation: U8, real: U8, percent: float) -> float:
    """Return the share of pixels within their stated interval, 0 to 100 %; best: `percent`.

    NaN if there is none. Pixels at the ends of the range are left out: see `within_range`.

    Args:
        estimate: see `needed_interval`.
        deviation: see `needed_interval`.
        real: gray levels (H, W).
        percent: nominal content of the interval.
    """
    needed = needed_interval(estimate, deviation, real)
    inside = needed[within_range(real)] <= percent
    return 100 * float(inside.mean()) if inside.size else np.nan


def within_range(real: U8) -> Mask:
    """Return where a real level is not cut off at 0 or 255, (H, W): it may lie outside there."""
    return (real > 0) & (real < 255)


class Thermal:
    """The thermal estimate, the gray visible image and constant images, against the real image.

    All scores are means over frames. If the real camera has automatic gain, its image is first
    converted to the usual level and gain of MSRS (`usual_gain`); correlation does not need this.

    psnr_..._db            see `images.psnr`: of the estimate, and of the gray visible image
    ssim_...               see `images.ssim`
    constant_of_best_...   level, PSNR and SSIM of the best constant, chosen on these frames
    correlation_...        see `correlation`
    coverage_50_percent    share of the pixels within the stated 50 % interval, see `coverage`
    coverage_90_percent
    """

    def __init__(self, uncertain: bool) -> None:
        """Store whether the bundle tells the uncertainty of the estimate."""
        self.outputs: frozenset[Output] = frozenset({"thermal_estimate"})
        if uncertain:
            self.outputs |= {"thermal_uncertainty"}
        self._columns = defaultdict[str, list[float]](list)
        self._constants = Constants()

    def applies(self, frame: Frame) -> bool:
        """Return whether it has a thermal image."""
        return frame.thermal is not None

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Compare the images of one frame."""
        real, estimate = given(frame.usual), given(fused.thermal_estimate)
        for name, shown in (("estimate", estimate), ("gray_visible", luma(image))):
            self._columns[f"psnr_{name}_db"].append(psnr(shown, real))
            self._columns[f"ssim_{name}"].append(ssim(shown, real))
            correlated = correlation(shown, given(frame.thermal))
            self._columns[f"correlation_{name}"].append(correlated)
        if fused.thermal_uncertainty is not None:
            for percent in INTERVALS:
                inside = coverage(estimate, fused.thermal_uncertainty, real, percent)
                self._columns[f"coverage_{percent}_percent"].append(inside)
        self._constants.add(real)

    def scores(self) -> dict[str, object]:
        """Return the scores."""
        if not self._columns:
            return {}
        return {"thermal": {**figures_of(self._columns), **self._constants.best()}}
