"""Pixels of `sensor_msgs/Image` and `CompressedImage` to RGB arrays and back, free of ROS.

Everything inside magicfuse_ros is RGB, HxWx3 uint8, C-contiguous.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from magicfuse_ros.errors import FrameError

Image = npt.NDArray[np.uint8]

_BYTES_PER_PIXEL = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2}
ENCODINGS: tuple[str, ...] = tuple(_BYTES_PER_PIXEL)
COMPRESSED_FORMATS: tuple[str, ...] = ("jpeg", "png")
MAX_PIXELS = 2**26  # of a compressed image: 200 MB as RGB
_YUV_NAMES = ("yuv", "yuyv", "uyvy", "nv12", "nv21", "nv24", "i420")

_TO_RGB: dict[str, Callable[[Image], Any]] = {
    "rgb8": lambda pixels: pixels.copy(),
    "bgr8": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB),
    "rgba8": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB),
    "bgra8": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB),
    "mono8": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB),
}


class Encoded(NamedTuple):
    """The size fields and the data of a `sensor_msgs/Image`.

    `data` is one-dimensional, uint8, C-contiguous and `step * height` long: a buffer that
    `array.frombytes` takes as it is.
    """

    height: int
    width: int
    step: int
    data: Image


def decode(
    encoding: str, height: int, width: int, step: int, is_bigendian: int, data: Any
) -> Image:
    """Decode the fields of a `sensor_msgs/Image`.

    Args:
        encoding: one of `ENCODINGS`.
        height: rows.
        width: columns.
        step: bytes of a row with its padding.
        is_bigendian: byte order of `mono16`; the other encodings do not have one.
        data: any buffer of `step * height` bytes.

    Returns:
        A new RGB image, HxWx3 uint8. 16 bits become 8 by dropping the low byte, alpha is dropped.

    Raises:
        FrameError: for another encoding, a size of zero, or a step or length that does not fit.
    """
    if encoding not in _BYTES_PER_PIXEL:
        raise FrameError(
            f"encoding is {encoding!r}; supported are {', '.join(ENCODINGS)}{_hint(encoding)}"
        )
    rows = _rows(encoding, height, width, step, data, width * _BYTES_PER_PIXEL[encoding])
    if encoding == "mono16":
        rows = np.ascontiguousarray(rows[:, 0 if is_bigendian else 1 :: 2])
        encoding = "mono8"
    return np.asarray(_TO_RGB[encoding](rows.reshape(height, width, -1)), np.uint8)


def decode_mask(encoding: str, height: int, width: int, step: int, data: Any) -> Image:
    """Decode the fields of a `sensor_msgs/Image` that holds class ids.

    Args:
        encoding: mono8 or 8UC1.
        height: rows.
        width: columns.
        step: bytes of a row with its padding.
        data: any buffer of `step * height` bytes.

    Returns:
        HxW uint8; a view of `data` where its rows are not padded.

    Raises:
        FrameError: for another encoding, a size of zero, or a step or length that does not fit.
    """
    if encoding not in ("mono8", "8UC1"):
        raise FrameError(f"mask has the encoding {encoding!r}; expected mono8 or 8UC1")
    return _rows(encoding, height, width, step, data, width)


def _rows(encoding: str, height: int, width: int, step: int, data: Any, row: int) -> Image:
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


def _hint(encoding: str) -> str:
    name = encoding.lower()
    if name.startswith("bayer"):
        return "; debayer it first, for example with image_proc's debayer node"
    if name.startswith(_YUV_NAMES):
        return "; let the camera driver or image_proc convert it to rgb8 first"
    return ""


def decode_compressed(format: str, data: Any) -> Image:
    """Decode the fields of a `sensor_msgs/CompressedImage`.

    Args:
        format: as ROS writes it, for example `jpeg`, `png` or `bgr8; jpeg compressed bgr8`.
        data: any buffer of bytes.

    Returns:
        A new RGB image, HxWx3 uint8, as the sensor sees it: an Exif orientation is not applied,
        so that it fits the camera_info.

    Raises:
        FrameError: for another format, data that is not an image, or one of over `MAX_PIXELS`.
    """
    name = format.lower()
    known = any(word in name for word in (*COMPRESSED_FORMATS, "jpg"))
    if not known or "compresseddepth" in name:
        raise FrameError(
            f"compressed format is {format!r}; supported are {', '.join(COMPRESSED_FORMATS)}"
        )
    _check_size(data)
    return decode_file(data, upright=False)


def _check_size(data: Any) -> None:
    """Read the header alone: a few damaged bytes there would make the decoder take gigabytes."""
    flat = np.frombuffer(data, dtype=np.uint8)
    try:
        with PIL.Image.open(io.BytesIO(flat.tobytes())) as file:
            width, height = file.size
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise FrameError(f"{flat.size} bytes of image data are damaged or no image") from error
    if width * height > MAX_PIXELS:
        raise FrameError(f"image is {width}x{height}; at most {MAX_PIXELS} pixels are decoded")


def decode_file(data: Any, *, upright: bool = True) -> Image:
    """Decode the bytes of a picture file of any type that OpenCV reads.

    Args:
        data: any buffer of bytes.
        upright: turn the picture as its Exif orientation says.

    Returns:
        A new RGB image, HxWx3 uint8; gray is spread to 3 channels, 16 bits become 8.

    Raises:
        FrameError: if the data is empty or not an image.
    """
    flat = np.frombuffer(data, dtype=np.uint8)
    if flat.size == 0:
        raise FrameError("image data is empty")
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(flat, flags)
    except cv2.error as error:
        raise FrameError(f"{flat.size} bytes of image data cannot be decoded: {error}") from error
    if bgr is None:
        raise FrameError(f"{flat.size} bytes of image data are damaged or no image")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def encode_bgr8(image: Image, out: Image | None = None) -> Encoded:
    """Encode an RGB image, HxWx3 uint8, as bgr8 without row padding.

    Args:
        image: not changed.
        out: as many bytes, one-dimensional and contiguous, to hold the data; None: a new array.

    Raises:
        FrameError: for another dtype or shape of `image`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise FrameError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    height, width = image.shape[:2]
    data = np.empty(image.size, np.uint8) if out is None else out
    cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=data.reshape(image.shape))
    return Encoded(height, width, 3 * width, data)


def encode_mono8(image: Image, out: Image | None = None) -> Encoded:
    """Encode a gray image or a mask, HxW uint8, as mono8 without row padding (step == width).

    Args:
        image: not changed.
        out: as many bytes, one-dimensional and contiguous, to hold the data; None: the data is a
            view of `image` where that is contiguous.

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
