# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Encodes RGB images and masks as the fields of a `sensor_msgs/Image`."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec.pixels import Pixels


class Encoded(NamedTuple):
    """The size fields and the data of a `sensor_msgs/Image`.

    `data` is one-dimensional, uint8, C-contiguous and `step * height` long: a buffer that
    `array.frombytes` accepts directly.
    """

    height: int
    width: int
    step: int
    data: Pixels


def encode_bgr8(image: Pixels, out: Pixels | None = None) -> Encoded:
    """Encode an RGB image, HxWx3 uint8, as bgr8 without row padding.

    Args:
        image: not changed.
        out: a one-dimensional, contiguous array of the same size for the data; None: a new array.

    Raises:
        FrameError: for another dtype or shape of `image`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise FrameError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    height, width = image.shape[:2]
    data = np.empty(image.size, np.uint8) if out is None else out
    cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=data.reshape(image.shape))
    return Encoded(height, width, 3 * width, data)


def encode_mono8(image: Pixels, out: Pixels | None = None) -> Encoded:
    """Encode a gray image or a mask, HxW uint8, as mono8 without row padding (step == width).

    Args:
        image: not changed.
        out: a one-dimensional, contiguous array of the same size for the data; None: the data is a
            view of `image` if that is contiguous.

    Raises:
        FrameError: for another dtype or shape of `image`.
    """
    if image.dtype != np.uint8 or image.ndim != 2 or image.size == 0:
        raise FrameError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W)")
    height, width = image.shape
    if out is None:
        return Encoded(height, width, width, np.ascontiguousarray(image).reshape(-1))
    np.copyto(out.reshape(image.shape), image)
    return Encoded(height, width, width, out)
