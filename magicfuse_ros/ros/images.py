# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Converts image messages to RGB arrays and back."""

from __future__ import annotations

from array import array

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from magicfuse_ros.image_codec import Pixels, encode_bgr8, encode_mono8


class ImageMessage:
    """A message that is reused for every image.

    Allocating new memory for every image takes longer than all other steps of filling a message.
    """

    def __init__(self) -> None:
        self._message = Image()

    def fill(self, pixels: Pixels, header: Header) -> Image:
        """Return RGB, HxWx3 uint8, as a bgr8 message, or HxW uint8 as mono8 with step == width.

        The message is valid until the next call; `publish` sends or copies it before it returns.

        Raises:
            FrameError: for another shape or dtype.
        """
        message = self._message
        if len(message.data) != pixels.size:
            # `data` accepts this type directly, and copies any other type byte by byte.
            message.data = array("B", bytes(pixels.size))
        out = np.frombuffer(message.data, np.uint8)
        gray = pixels.ndim == 2
        encoded = encode_mono8(pixels, out) if gray else encode_bgr8(pixels, out)
        message.header = header
        message.encoding = "mono8" if gray else "bgr8"
        message.height, message.width, message.step = encoded.height, encoded.width, encoded.step
        return message


def to_message(pixels: Pixels, header: Header) -> Image:
    """Return pixels as a new message; see `ImageMessage.fill`."""
    return ImageMessage().fill(pixels, header)
