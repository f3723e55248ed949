# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A substitute for the clean image that a real night frame lacks."""

from __future__ import annotations

import cv2
import numpy as np

from magicfuse_training.arrays import U8


def night_reference(image: U8) -> U8:
    """Brighten and denoise a night frame (H, W, 3) RGB uint8; same shape.

    This is Retinex: the image is divided by a power of its own edge-preserving illumination (as in
    LIME, 10.1109/TIP.2016.2639450). Chroma is smoothed, reduced and balanced, because most of it is
    noise and lamp colour. The result is an imperfect teacher, so stages give it a low weight, and
    scores never compare with it.
    """
    height, width = image.shape[:2]
    smooth = cv2.bilateralFilter(image, 7, 18, 3)
    light = smooth.max(2).astype(np.float32) / 255
    quarter = max(1, width // 4), max(1, height // 4)
    small = cv2.resize(light, quarter, interpolation=cv2.INTER_AREA)
    small = cv2.bilateralFilter(small, -1, 0.12, 10)
    light = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).clip(0.02, 1)
    bright = smooth.astype(np.float32) / 255 / light[..., None] ** 0.6
    bright = np.clip(bright, 0, 1, dtype=np.float32)
    mean = bright.mean((0, 1))
    gain = np.clip(mean.mean() / mean, 0.8, 1.25) - 1
    lamp = bright.max(2, keepdims=True)  # lamps are already white
    balanced = np.clip(bright * (1 + gain * (1 - lamp)), 0, 1, dtype=np.float32)
    y, cr, cb = cv2.split(cv2.cvtColor(balanced, cv2.COLOR_RGB2YCrCb))
    cr, cb = (0.5 + 0.5 * (cv2.GaussianBlur(c, (0, 0), 2.0) - 0.5) for c in (cr, cb))
    rgb = cv2.cvtColor(cv2.merge([y, cr, cb]), cv2.COLOR_YCrCb2RGB)
    return np.asarray(np.clip(rgb * 255, 0, 255).round(), np.uint8)
