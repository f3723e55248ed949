# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Decodes image messages and picture files to RGB arrays and encodes them, without ROS.

All images inside magicfuse_ros are RGB, HxWx3 uint8, C-contiguous.
"""

from magicfuse_ros.image_codec.bit_depth import BitDepth
from magicfuse_ros.image_codec.compressed import MAX_PIXELS, decode_compressed, decode_message
from magicfuse_ros.image_codec.encode import Encoded, encode_bgr8, encode_mono8
from magicfuse_ros.image_codec.files import decode_file, decode_picture, to_rgb
from magicfuse_ros.image_codec.pixels import Pixels
from magicfuse_ros.image_codec.raw import ENCODINGS, decode, decode_mask

__all__ = [
    "ENCODINGS", "MAX_PIXELS", "BitDepth", "Encoded", "Pixels", "decode", "decode_compressed",
    "decode_file", "decode_mask", "decode_message", "decode_picture", "encode_bgr8",
    "encode_mono8", "to_rgb",
]  # fmt: skip
