# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Decodes PNGs and verifies their checksums: libpng and OpenCV differ in what they accept."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec.pixels import decoded_by_opencv

MAGIC = b"\x89PNG\r\n\x1a\n"
_EXTRA = 12  # bytes of a chunk besides its content: length, name, checksum


def size(data: bytes) -> tuple[int, int]:
    """Return the height and width.

    Raises:
        FrameError: if the file does not begin with them.
    """
    if len(data) < len(MAGIC) + _EXTRA + 13 or data[12:16] != b"IHDR":
        raise _damaged(data, "its header is cut")
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def check(data: bytes) -> None:
    """Check that every chunk is there and has the right checksum.

    Raises:
        FrameError: if the file is cut or damaged.
    """
    at = len(MAGIC)
    while data[at + 4 : at + 8] != b"IEND":
        end = at + _EXTRA + int.from_bytes(data[at : at + 4], "big")
        if at + _EXTRA > len(data) or end > len(data):
            raise _damaged(data, "its end is missing")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise _damaged(data, "a checksum is wrong")
        at = end


def decode(data: bytes) -> npt.NDArray[np.generic]:
    """Decode a complete PNG.

    Returns:
        uint8 or uint16: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGRA, as stored.

    Raises:
        FrameError: if it is cut or damaged.
    """
    check(data)
    return decoded_by_opencv(data, cv2.IMREAD_UNCHANGED)


def _damaged(data: bytes, why: str) -> FrameError:
    return FrameError(f"{len(data)} bytes of PNG are damaged or cut: {why}")
