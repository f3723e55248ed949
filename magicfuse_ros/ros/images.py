"""Image messages to RGB arrays and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from magicfuse_ros.image_codec import (
    Encoded,
    decode,
    decode_compressed,
    encode_bgr8,
    encode_mono8,
)

Pixels = npt.NDArray[np.uint8]


def to_rgb(message: Image | CompressedImage) -> Pixels:
    """Return the image of a message as RGB, HxWx3 uint8.

    Raises:
        FrameError: if the message cannot be decoded.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message.format, message.data)
    return decode(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.is_bigendian,
        message.data,
    )


def to_message(pixels: Pixels, header: Header) -> Image:
    """Return RGB, HxWx3 uint8, as a bgr8 message, or HxW uint8 as mono8 with step == width.

    Raises:
        FrameError: for another shape or dtype.
    """
    if pixels.ndim == 2:
        return _message("mono8", encode_mono8(pixels), header)
    return _message("bgr8", encode_bgr8(pixels), header)


def _message(encoding: str, encoded: Encoded, header: Header) -> Image:
    message = Image(
        header=header,
        encoding=encoding,
        height=encoded.height,
        width=encoded.width,
        step=encoded.step,
    )
    # Assigning to `data` would check or copy byte by byte; the empty array of a new message grows.
    message.data.frombytes(encoded.data)
    return message
