# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Decodes `sensor_msgs/Image`."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import jpeg
from magicfuse_ros.image_codec.bit_depth import BitDepth
from magicfuse_ros.image_codec.pixels import Pixels, converted


class _Layout(NamedTuple):
    """Channels per pixel, bytes per channel, and OpenCV's conversion of 8-bit pixels to RGB."""

    channels: int
    bytes: int
    to_rgb: int | None  # None: already RGB


# OpenCV names a mosaic by its second row, starting at the second column: its BayerBG is ROS's rggb.
_MOSAICS = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
_COLORS = {
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "mono": (1, cv2.COLOR_GRAY2RGB),
    **{name: (1, code) for name, code in _MOSAICS.items()},
}
_LAYOUTS = {
    **{f"{name}8": _Layout(channels, 1, code) for name, (channels, code) in _COLORS.items()},
    **{f"{name}16": _Layout(channels, 2, code) for name, (channels, code) in _COLORS.items()},
    # These do not state an order; cv_bridge assumes BGR, as OpenCV does.
    "8UC1": _Layout(1, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": _Layout(3, 1, cv2.COLOR_BGR2RGB),
    "8UC4": _Layout(4, 1, cv2.COLOR_BGRA2RGB),
    "uyvy": _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
}
# A plane of Y, then a plane of alternating U and V (nv21: V and U). The value is the number of
# bytes in the second plane for each byte in the first.
_PLANES = {"nv12": 0.5, "nv21": 0.5, "nv24": 2.0}
_PLANES_TO_RGB = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
# From Y, U, V of BT.601, with Y from 16 to 235, to R, G, B, as in OpenCV's conversions.
_YUV_TO_RGB = np.array(
    [
        [1.164, 0.0, 1.596, -16 * 1.164 - 128 * 1.596],
        [1.164, -0.391, -0.813, -16 * 1.164 + 128 * (0.391 + 0.813)],
        [1.164, 2.018, 0.0, -16 * 1.164 - 128 * 2.018],
    ]
)
_HEADER = 4096  # bytes that hold the header of a camera's JPEG
ENCODINGS: tuple[str, ...] = (*_LAYOUTS, *_PLANES)


def is_mosaic(encoding: str) -> bool:
    """Return whether a known encoding is a mosaic: a single pixel has no full colour."""
    return encoding.startswith("bayer_")


def is_yuv(encoding: str) -> bool:
    """Return whether an encoding stores brightness and colour separately."""
    return encoding.lower().startswith(("yuv", "yuyv", "uyvy", "nv1", "nv2"))


def decode(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: int,
    data: Any,
    depth: BitDepth | None = None,
) -> Pixels:
    """Decode the fields of a `sensor_msgs/Image`.

    Args:
        encoding: one of `ENCODINGS`.
        height: rows.
        width: columns.
        step: bytes per row, including padding.
        is_bigendian: byte order of 16-bit encodings; other encodings ignore it.
        data: any buffer of `step * height` bytes. The second plane of nv12 and nv21 adds half as
            much, that of nv24 twice as much.
        depth: bit depth of the camera's 16-bit images so far; None judges this image alone.

    Returns:
        A new RGB image, HxWx3 uint8; alpha is dropped.

    Raises:
        FrameError: for another encoding, a size of zero, or a size, step or length that does not
            fit.
    """
    if encoding in _PLANES:
        return _decode_planes(encoding, height, width, step, data)
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise FrameError(
            f"encoding is {encoding!r}; supported are {', '.join(ENCODINGS)}{_hint(encoding)}"
        )
    if layout.channels == 2 and step in (width, 3 * width):
        # image_transport's republisher keeps the encoding of before compression.
        layout = _LAYOUTS["mono8" if step == width else "bgr8"]
    row = width * layout.channels * layout.bytes
    rows = _rows(encoding, height, width, step, data, row)
    if layout.channels == 2 and width % 2:
        raise FrameError(f"image is {width}x{height}; {encoding} has an even width")
    if is_mosaic(encoding) and min(height, width) < 2:
        raise FrameError(f"image is {width}x{height}; {encoding} has at least 2x2 pixels")
    _check_no_file(encoding, height, width, data)
    if layout.bytes == 2:
        words = np.ascontiguousarray(rows).view(">u2" if is_bigendian else "<u2")
        if layout.channels == 4:
            words = words.copy()
            words[:, 3::4] = 0  # alpha is always bright, and tells nothing of the camera's depth
        rows = (depth or BitDepth()).to_8_bits(words)
    pixels = rows.reshape(height, width, layout.channels)
    return pixels.copy() if layout.to_rgb is None else converted(pixels, layout.to_rgb)


def _decode_planes(encoding: str, height: int, width: int, step: int, data: Any) -> Pixels:
    share = _PLANES[encoding]
    if share < 1 and (height % 2 or width % 2):
        raise FrameError(f"image is {width}x{height}; {encoding} has an even width and height")
    flat = np.frombuffer(data, dtype=np.uint8)
    whole = round(height * (1 + share))
    if flat.size == step * height and step * height == width * whole:
        step = width  # some drivers count the bytes of both planes in `step`
    planes = _rows(encoding, whole, width, step, flat, width)
    if encoding in _PLANES_TO_RGB:
        return converted(np.ascontiguousarray(planes), _PLANES_TO_RGB[encoding])
    colors = flat.reshape(whole, step)[height:].reshape(height, 2 * step)[:, : 2 * width]
    yuv = np.dstack([planes[:height], colors.reshape(height, width, 2)])
    return np.asarray(cv2.transform(yuv, _YUV_TO_RGB), np.uint8)


def decode_mask(encoding: str, height: int, width: int, step: int, data: Any) -> Pixels:
    """Decode the fields of a `sensor_msgs/Image` that holds class ids.

    Args:
        encoding: mono8 or 8UC1.
        height: rows.
        width: columns.
        step: bytes per row, including padding.
        data: any buffer of `step * height` bytes.

    Returns:
        HxW uint8; a view of `data` if its rows are not padded.

    Raises:
        FrameError: for another encoding, a size of zero, or a step or length that does not fit.
    """
    if encoding not in ("mono8", "8UC1"):
        raise FrameError(f"mask has the encoding {encoding!r}; expected mono8 or 8UC1")
    return _rows(encoding, height, width, step, data, width)


def _rows(encoding: str, height: int, width: int, step: int, data: Any, row: int) -> Pixels:
    """Return the pixels' bytes, height x row, without padding."""
    if height < 1 or width < 1:
        raise FrameError(f"image is {width}x{height}; expected at least 1x1")
    if step < row:
        raise FrameError(f"step is {step}; {width} pixels of {encoding} take {row} bytes a row")
    flat = np.frombuffer(data, dtype=np.uint8)
    if flat.size != step * height:
        raise FrameError(
            f"data is {flat.size} bytes long; step {step} x height {height} is {step * height}"
        )
    return flat.reshape(height, step)[:, :row]


def _check_no_file(encoding: str, height: int, width: int, data: Any) -> None:
    """Refuse a JPEG that a driver (usb_cam with raw_mjpeg) sends as raw pixels."""
    if not (content := np.frombuffer(data, np.uint8)[:_HEADER].tobytes()).startswith(jpeg.MAGIC):
        return
    try:
        header = jpeg.read_header(content)
    except FrameError:
        return  # pixels that look like a beginning
    if (header.height, header.width) == (height, width):
        raise FrameError(
            f"encoding is {encoding!r}, but the data is a JPEG: let the camera driver decode it "
            "(usb_cam: pixel_format mjpeg2rgb)"
        )


def _hint(encoding: str) -> str:
    if encoding == "16UC1":
        return "; this one is usually for depth: let a gray camera publish mono16"
    if encoding == "32FC1":
        return "; this one is for depth: subscribe to the visible camera"
    if is_yuv(encoding) or encoding.lower().startswith(("bayer", "i420")):
        return "; let the camera driver or image_proc convert it to rgb8 first"
    return ""
