# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads picture files, for `magicfuse` and for the training package.

JPEG and PNG use the same decoders as messages; other formats use Pillow, which knows the maxval of
a PNM and the types of a TIFF. A picture is rotated as its Exif orientation says.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
import PIL.TiffImagePlugin

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import jpeg, png
from magicfuse_ros.image_codec.bit_depth import BitDepth, scaled
from magicfuse_ros.image_codec.pixels import Pixels, converted, decoded_by_opencv

RawPixels = npt.NDArray[Any]

_TIFF = (b"II*\0", b"MM\0*")
_FORMATS = ("BMP", "PPM", "TIFF", "WEBP")
_MAX_PIXELS = 2**27  # 400 MB as RGB; phone cameras have up to 108 million pixels
PIL.Image.MAX_IMAGE_PIXELS = _MAX_PIXELS  # Pillow's own limit warns of an attack by such a phone
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 0x0102  # tags of Exif and TIFF
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_PLANES = 0x0100, 0x0101, 0x011C
_PHOTOMETRIC, _WHITE_IS_ZERO = 0x0106, 0
_TIFF_TAGS = (_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_PLANES, _PHOTOMETRIC)
_TIFF_NUMBERS = {3: "H2x", 4: "I"}  # types of their values
_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, struct.error, PIL.Image.DecompressionBombError,
)  # fmt: skip


def decode_picture(data: bytes) -> RawPixels:
    """Decode a picture file in its own type, but upright.

    Returns:
        uint8, uint16 or float32: (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA, C-contiguous. A
        PNM's levels are scaled to 8 bits by its maxval, unless that is 65535.

    Raises:
        FrameError: if the data is empty, not a picture, too large, cut or damaged.
    """
    if not data:
        raise FrameError("image data is empty")
    if data.startswith(jpeg.MAGIC):
        header = jpeg.read_header(data)
        _check_size(header.height, header.width)
        rgb, channels = jpeg.decode(data)
        pixels: RawPixels = rgb[..., 0] if channels == 1 else rgb
    elif data.startswith(png.MAGIC):
        _check_size(*png.size(data))
        pixels = _to_rgb_order(png.decode(data))
    else:
        return np.ascontiguousarray(_decode_other(data))
    return np.ascontiguousarray(_upright(pixels, orientation(data)))


def decode_file(data: bytes, depth: BitDepth | None = None) -> Pixels:
    """Decode a picture file for the networks.

    Args:
        data: the file.
        depth: bit depth of the same camera's 16-bit pictures so far; None judges this one alone.

    Returns:
        A new RGB image, upright, HxWx3 uint8, without alpha. Float pictures range from 0 to 1.

    Raises:
        FrameError: as for `decode_picture`, and for values outside 0 to 1 in a float picture.
    """
    return to_rgb(decode_picture(data), depth)


def to_rgb(pixels: RawPixels, depth: BitDepth | None = None) -> Pixels:
    """Convert the pixels from `decode_picture` to RGB, HxWx3 uint8.

    Raises:
        FrameError: for values outside 0 to 1 in a float picture.
    """
    if pixels.ndim == 3:
        pixels = pixels[..., :3]  # before the depth is judged: alpha is always bright
    if pixels.dtype == np.uint16:
        pixels = (depth or BitDepth()).to_8_bits(pixels)
    elif pixels.dtype == np.float32:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise FrameError(f"float picture has values from {low:g} to {high:g}; expected 0 to 1")
        pixels = scaled(pixels, 0.0, 1.0)
    if pixels.ndim == 2:
        return converted(pixels, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(pixels)


def orientation(data: bytes) -> int:
    """Return the Exif orientation of a picture file, 1 to 8; 1 if there is none."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            found = file.getexif().get(_ORIENTATION, 1)
    except _PILLOW_ERRORS:  # the decoder will report a bad picture
        return 1
    return found if found in range(1, 9) else 1


def _check_size(height: int, width: int) -> None:
    """Check the size in the header: a small file may claim to hold gigapixels."""
    if width * height > _MAX_PIXELS:
        raise FrameError(f"picture is {width}x{height}; at most {_MAX_PIXELS} pixels are decoded")


def _upright(pixels: RawPixels, orientation: int) -> RawPixels:
    """Undo the camera's orientation: 2 to 8 are mirrors, half and quarter turns, or both."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _decode_other(data: bytes) -> RawPixels:
    try:
        with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as file:
            _check_size(file.height, file.width)
            negative_of = 0
            if isinstance(file, PIL.TiffImagePlugin.TiffImageFile):
                bits = file.tag_v2.get(_BITS_PER_SAMPLE, (1,))
                if len(bits) > 1 and max(bits) > 8:  # Pillow would keep only 8 of them
                    return _decode_tiff(data)
                if file.mode.startswith("I;") and file.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
                    negative_of = (1 << bits[0]) - 1  # Pillow inverts those of 8 bits only
            pixels = _pillow_pixels(PIL.ImageOps.exif_transpose(file), data)
            return negative_of - pixels if negative_of else pixels
    except PIL.UnidentifiedImageError as error:
        if data.startswith(_TIFF):  # a kind that Pillow cannot read, such as floats in colour
            return _decode_tiff(data)
        raise FrameError(f"{len(data)} bytes of image data are damaged or no image") from error
    except _PILLOW_ERRORS as error:
        raise FrameError(f"{len(data)} bytes of image data are damaged: {error}") from error


def _pillow_pixels(file: PIL.Image.Image, data: bytes) -> RawPixels:
    mode = file.mode
    if mode == "F":
        return np.asarray(file, np.float32)
    if mode.startswith("I"):
        values = np.asarray(file)
        if values.min() < 0 or values.max() > 65535:
            raise FrameError(
                f"picture has values from {values.min()} to {values.max()}; expected 0 to 65535"
            )
        maxval = _pnm_maxval(data)
        if maxval < 65535:  # Pillow has scaled the levels to 65535
            return scaled(values, 0, 65535)
        return values.astype(np.uint16)
    alpha = mode in ("RGBA", "LA", "PA") or "transparency" in file.info
    if mode in ("1", "L") and not alpha:
        return np.asarray(file.convert("L"), np.uint8)
    return np.asarray(file.convert("RGBA" if alpha else "RGB"), np.uint8)


def _pnm_maxval(data: bytes) -> int:
    """Return the highest level that a PNM declares; 65535 for other formats."""
    if data[:2] not in (b"P2", b"P3", b"P5", b"P6"):
        return 65535
    lines = (line.split(b"#")[0] for line in data[:4096].splitlines())
    fields = b" ".join(lines).split()
    return int(fields[3]) if len(fields) > 3 and fields[3].isdigit() else 65535


def _decode_tiff(data: bytes) -> RawPixels:
    found = _tiff_numbers(data)
    _check_size(found[_TIFF_HEIGHT], found[_TIFF_WIDTH])
    # OpenCV reads both of these wrong.
    if found.get(_TIFF_PLANES) == 2:
        raise FrameError(
            "TIFF has more than 8 bits and a plane for each colour (PlanarConfiguration 2); "
            "expected the colours of a pixel side by side"
        )
    if found.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise FrameError("TIFF has more than 8 bits, and 0 is white; expected 0 to be black")
    pixels = decoded_by_opencv(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise FrameError(f"picture is {pixels.dtype}; expected 8 or 16 bits, or 32-bit float")
    return _to_rgb_order(pixels)


def _tiff_numbers(data: bytes) -> dict[int, int]:
    """Return the numbers of `_TIFF_TAGS`, by tag, of the first picture in a TIFF.

    Raises:
        FrameError: if it does not tell its size.
    """
    order = "<" if data.startswith(b"II") else ">"
    found: dict[int, int] = {}
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", data, entry)
            if tag in _TIFF_TAGS and tag not in found:  # libtiff takes the first
                (found[tag],) = struct.unpack_from(order + _TIFF_NUMBERS[kind], data, entry + 8)
        return {_TIFF_WIDTH: found[_TIFF_WIDTH], _TIFF_HEIGHT: found[_TIFF_HEIGHT], **found}
    except (struct.error, KeyError) as error:
        raise FrameError(f"{len(data)} bytes of TIFF are damaged: it tells no size") from error


def _to_rgb_order(pixels: RawPixels) -> RawPixels:
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] not in (3, 4):
        raise FrameError(f"picture has {pixels.shape[2]} channels; expected 1, 3 or 4")
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return pixels[..., order]
