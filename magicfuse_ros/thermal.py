# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads the thermal estimate and its uncertainty from the decoded image of the thermal stream.

The estimate is the luma of that image. If the bundle has `thermal_uncertainty`, it is the red
channel, and the blue channel codes the size of its error: see `ThermalUncertainty`.
"""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.bundle import ThermalUncertainty
from magicfuse_ros.outputs import Output

# Standard deviation / mean absolute error of a normal distribution. Networks learn the latter; on
# training frames, errors are closer to normal than to Laplace distributions.
PER_MEAN_ERROR = float(np.sqrt(np.pi / 2))
_RED, _BLUE = 0, 2
_WHITE = 255


class ThermalReader:
    """Reads the thermal outputs from the decoded image."""

    def __init__(self, coding: ThermalUncertainty | None) -> None:
        """Take the bundle's coding of the error; None if it has none."""
        self._deviations = None if coding is None else standard_deviations(coding)

    def __call__(
        self, image: npt.NDArray[np.uint8], outputs: Collection[Output]
    ) -> dict[str, npt.NDArray[np.uint8]]:
        """Return `thermal_estimate` and `thermal_uncertainty`, as far as they are in `outputs`.

        Args:
            image: [H, W, 3] uint8, as decoded.
            outputs: may contain `thermal_uncertainty` only if the bundle has it.

        Returns:
            A [H, W] uint8 image per output, gray levels 0 to 255.
        """
        found: dict[str, npt.NDArray[np.uint8]] = {}
        if "thermal_estimate" in outputs:
            coded = self._deviations is not None
            gray = cv2.extractChannel(image, _RED) if coded else _luma(image)
            found["thermal_estimate"] = np.asarray(gray, np.uint8)
        if "thermal_uncertainty" in outputs:
            assert self._deviations is not None  # `check_outputs` rejects it otherwise
            codes = cv2.extractChannel(image, _BLUE)
            found["thermal_uncertainty"] = np.asarray(cv2.LUT(codes, self._deviations), np.uint8)
        return found


def standard_deviations(coding: ThermalUncertainty) -> npt.NDArray[np.uint8]:
    """Return the standard deviation for each code 0 to 255: [256] uint8, gray levels, at most 255.

    They are those of normal distributions with the mean absolute error b.
    """
    codes = np.arange(256) / 255
    scales = coding.lowest * (coding.highest / coding.lowest) ** codes
    deviations = np.rint(_WHITE * PER_MEAN_ERROR * scales)
    return np.asarray(np.minimum(deviations, _WHITE), np.uint8)


def _luma(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
