# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Decodes `sensor_msgs/CompressedImage`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import jpeg, png
from magicfuse_ros.image_codec.bit_depth import BitDepth
from magicfuse_ros.image_codec.pixels import Pixels, rgb_of_bgr
from magicfuse_ros.image_codec.raw import ENCODINGS, decode, is_mosaic, is_yuv

MAX_PIXELS = 2**26  # 200 MB as RGB
_MAGICS = (jpeg.MAGIC, png.MAGIC)
_CODECS = {"jpeg": "jpeg", "jpg": "jpeg", "mjpeg": "jpeg", "mjpg": "jpeg", "png": "png"}


class Format(NamedTuple):
    """The content of a message's `format`: `ENCODING; CODEC compressed ORDER`.

    Attributes:
        encoding: encoding of the raw image before compression; empty if not given.
        codec: the codec as written, in lower case; empty if not given.
        swapped: red and blue are swapped in the file.
        gray: the file is a gray picture, whatever the encoding was: image_transport has made it one
            (of YUV until Iron, of mosaics in all distributions).
    """

    encoding: str
    codec: str
    swapped: bool
    gray: bool


def parse_format(text: str) -> Format:
    """Read a format as image_transport and camera drivers write it; every part may be missing."""
    encoding, _, rest = text.rpartition(";")
    words = rest.lower().split() or [""]
    order = words[2] if words[1:2] == ["compressed"] and len(words) > 2 else ""
    codec = words[0].removeprefix("image/").removeprefix(".")
    # Encoders expect BGR, as OpenCV does: if they get RGB, red and blue are swapped in the file.
    return Format(encoding.strip(), codec, order.startswith("rgb"), order == "mono8")


def decode_compressed(format: str, data: Any, depth: BitDepth | None = None) -> Pixels:
    """Decode the fields of a `sensor_msgs/CompressedImage`.

    Args:
        format: for example `jpeg` or `rgb8; png compressed bgr8`. The data itself tells JPEG from
            PNG, whatever else a driver writes here, such as `bgr8` or nothing.
        data: any buffer of bytes.
        depth: bit depth of the camera's 16-bit images so far; None judges this image alone.

    Returns:
        A new RGB image, HxWx3 uint8, as the sensor sees it: an Exif orientation is not applied,
        so that the image matches the camera_info.

    Raises:
        FrameError: for data of another format; for a JPEG that holds depth, or the single channel
            of a mosaic or YUV image; for data that is damaged or not an image; and for an image of
            more than `MAX_PIXELS`.
    """
    told = parse_format(format)
    unknown = told.codec and told.codec not in _CODECS
    if unknown:  # an encoding in place of the codec, or some other word of the driver's
        told = told._replace(encoding=told.codec if told.codec in ENCODINGS else "")
    content = np.frombuffer(data, np.uint8).tobytes()
    if told.codec.startswith("compresseddepth") or (unknown and not content.startswith(_MAGICS)):
        raise FrameError(f"compressed format is {format!r}; supported are jpeg, png")
    if content.startswith(jpeg.MAGIC):
        header = jpeg.read_header(content)
        _check_size(header.height, header.width)
        _check_channels(format, told, header.channels, lossless=False)
        rgb, _ = jpeg.decode(content)
    elif content.startswith(png.MAGIC):
        _check_size(*png.size(content))
        pixels = png.decode(content)
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        _check_channels(format, told, channels, lossless=True)
        rgb = _png_to_rgb(pixels, "" if told.gray else told.encoding, depth)
    elif not content:
        raise FrameError(
            "image data is empty: the publisher could not compress its image; use the raw topic"
        )
    else:
        raise FrameError(f"{len(content)} bytes of image data are damaged: neither JPEG nor PNG")
    return rgb_of_bgr(rgb) if told.swapped else rgb


def decode_message(message: Any, depth: BitDepth | None = None) -> Pixels:
    """Decode a `sensor_msgs/Image` or `CompressedImage`, of rclpy or rosbags.

    Errors, `depth` and the result are those of `decode` and `decode_compressed`.
    """
    if hasattr(message, "format"):
        return decode_compressed(message.format, message.data, depth)
    size = message.height, message.width, message.step
    return decode(message.encoding, *size, message.is_bigendian, message.data, depth)


def _png_to_rgb(pixels: Any, encoding: str, depth: BitDepth | None) -> Pixels:
    if is_mosaic(encoding) and pixels.ndim == 2:
        height, width = pixels.shape
        bits = 8 * pixels.itemsize
        name = f"{encoding.rstrip('0123456789')}{bits}"
        little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
        return decode(name, height, width, width * bits // 8, 0, little.reshape(-1), depth)
    if pixels.dtype == np.uint16:
        colours = pixels[..., :3] if pixels.ndim == 3 else pixels  # alpha is always bright
        pixels = np.ascontiguousarray((depth or BitDepth()).to_8_bits(colours))
    return rgb_of_bgr(pixels)


def _check_size(height: int, width: int) -> None:
    """Check the size in the header: a few damaged bytes there would cost the decoder gigabytes."""
    if width * height > MAX_PIXELS:
        raise FrameError(f"image is {width}x{height}; at most {MAX_PIXELS} pixels are decoded")


def _check_channels(format: str, told: Format, channels: int, lossless: bool) -> None:
    """Reject other data that was squeezed into a gray picture."""
    encoding = told.encoding
    if not encoding or channels > 1 or (told.gray and encoding in ENCODINGS):
        return
    if is_mosaic(encoding) and not lossless:
        raise FrameError(
            f"compressed format is {format!r}; JPEG spoils the colours of a mosaic: debayer it "
            "first, for example with image_proc's debayer node"
        )
    if is_yuv(encoding):
        raise FrameError(
            f"compressed format is {format!r}; its gray file is not a picture: let the camera "
            "driver or image_proc convert it to rgb8 first"
        )
    if encoding not in ENCODINGS:
        raise FrameError(f"compressed format is {format!r}; {encoding!r} is not a camera image")
