# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""sRGB codes and linear light: exposure, haze and photon noise add up in linear light only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from magicfuse_ros.image_codec import Pixels

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


def to_linear(image: Pixels) -> Linear:
    """Decode sRGB: uint8 to linear light, float32 in [0, 1], same shape."""
    return _TO_LINEAR[image]


def to_srgb(linear: Linear) -> Pixels:
    """Encode linear light as sRGB uint8; values outside [0, 1] are clipped, as a sensor does."""
    return _TO_SRGB[(np.clip(linear, 0.0, 1.0) * _LEVELS + 0.5).astype(np.int16)]
