# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Converts a decoded frame to RGB for viewing: upright, with square pixels, in sRGB's range."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import MAX_PIXELS, BitDepth, Pixels
from magicfuse_ros.media.hdr import Transfer, tone_mapped

_SHAPES = Fraction(1, 8), Fraction(8)  # of pixels; beyond them the file must be wrong


def to_rgb(
    frame: VideoFrame, pixel_shape: Fraction | None, transfer: Transfer | None, depth: BitDepth
) -> Pixels:
    """Return the image of a frame.

    Args:
        frame: a frame of any pixel format.
        pixel_shape: width of a pixel divided by its height; None: square.
        transfer: transfer function of an HDR video, which is tone-mapped; None for other videos.
        depth: how many of their 16 bits the video's gray values use.

    Returns:
        HxWx3 uint8, RGB, C-contiguous.

    Raises:
        FrameError: if it would have more than `MAX_PIXELS`.
    """
    width = frame.width
    if pixel_shape and _SHAPES[0] <= pixel_shape <= _SHAPES[1]:
        width = max(1, int(width * pixel_shape))  # rounded as FFmpeg does
    if width * frame.height > MAX_PIXELS:
        raise FrameError(
            f"frame is {width}x{frame.height} with square pixels; at most {MAX_PIXELS} pixels are "
            "converted"
        )
    # Sensors of 10 to 14 bits are stored as they are: a conversion to 8 bits would be black.
    gray = frame.format.name.startswith("gray16")
    form = "gray16le" if gray else "rgb24" if transfer is None else "rgb48le"
    pixels: Any = frame.to_ndarray(format=form, width=width, interpolation="BICUBIC")
    if gray:
        pixels = np.stack([depth.to_8_bits(pixels)] * 3, axis=-1)
    image = pixels if transfer is None or gray else tone_mapped(pixels, transfer)
    return np.ascontiguousarray(_upright(image, frame), dtype=np.uint8)


def _upright(image: Pixels, frame: VideoFrame) -> Pixels:
    """Rotate an image by quarter turns and mirror it, as its display matrix says; x points right.

    The matrix maps (x, y) of the stored image to (a x + c y, b x + d y).
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
