# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.
"""Images that tests lay out as cameras do."""

from __future__ import annotations

import cv2
import numpy as np

from magicfuse_ros.image_codec import Pixels

MOSAICS = [f"bayer_{p}{bits}" for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]


def patches() -> Pixels:
    """Return an 8x12 RGB image with one red, one green, one blue and one gray patch."""
    colors = np.array([[(200, 40, 40), (40, 180, 60)], [(30, 60, 210), (128, 128, 128)]], np.uint8)
    return colors.repeat(4, 0).repeat(6, 1)


def mosaic(encoding: str, rgb: Pixels) -> Pixels:
    """Return what a sensor behind such a filter sees, (H, W)."""
    found = np.empty(rgb.shape[:2], np.uint8)
    for place, color in enumerate(encoding.removeprefix("bayer_")[:4]):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        found[at] = rgb[..., "rgb".index(color)][at]
    return found


def compress(suffix: str, rgb: Pixels) -> bytes:
    """Return an RGB image as the data of a picture file."""
    return bytes(cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes())
