# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Converts arrays of one, three or four channels to RGB."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.errors import FrameError

Pixels = npt.NDArray[np.uint8]

_FROM_BGR = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}


def converted(pixels: Pixels, code: int) -> Pixels:
    """Convert the pixels with `cv2.cvtColor`.

    Raises:
        FrameError: if OpenCV fails, for example for lack of memory.
    """
    try:
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    except cv2.error as error:
        raise FrameError(f"the pixels cannot be converted to RGB: {error}") from error


def rgb_of_bgr(pixels: Pixels) -> Pixels:
    """Return gray, BGR or BGRA pixels, (H, W) or (H, W, C), as RGB without alpha."""
    return converted(pixels, _FROM_BGR[1 if pixels.ndim == 2 else pixels.shape[2]])


def decoded_by_opencv(data: bytes, flags: int) -> npt.NDArray[np.generic]:
    """Decode a file with `cv2.imdecode`.

    Raises:
        FrameError: if OpenCV cannot decode it.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(f"{len(data)} bytes of image data cannot be decoded: {error}") from error
    if pixels is None:
        raise FrameError(f"{len(data)} bytes of image data are damaged or no image")
    return np.asarray(pixels)
