"""Decodes image messages and picture files to RGB arrays and encodes them, without ROS.

All images inside magicfuse_ros are RGB, HxWx3 uint8, C-contiguous.
"""

from magicfuse_ros.image_codec.bit_depth import BitDepth
from magicfuse_ros.image_codec.compressed import COMPRESSED_FORMATS, MAX_PIXELS, decode_compressed
from magicfuse_ros.image_codec.encode import Encoded, encode_bgr8, encode_mono8
from magicfuse_ros.image_codec.files import decode_file, decode_picture, to_rgb
from magicfuse_ros.image_codec.pixels import Image
from magicfuse_ros.image_codec.raw import ENCODINGS, decode, decode_mask

__all__ = [
    "COMPRESSED_FORMATS",
    "ENCODINGS",
    "MAX_PIXELS",
    "BitDepth",
    "Encoded",
    "Image",
    "decode",
    "decode_compressed",
    "decode_file",
    "decode_mask",
    "decode_picture",
    "encode_bgr8",
    "encode_mono8",
    "to_rgb",
]
