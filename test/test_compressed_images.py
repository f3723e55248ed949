# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.
from __future__ import annotations

import cv2
import numpy as np
import pytest

from image_messages import MOSAICS, compress, mosaic, patches
from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import BitDepth, decode, decode_compressed, decode_file
from media_files import picture


@pytest.mark.parametrize("name", ["png", "bgr8; png compressed bgr8", "PNG"])
def test_png_messages(name: str) -> None:
    rgb = picture()
    np.testing.assert_array_equal(decode_compressed(name, compress(".png", rgb)), rgb)


@pytest.mark.parametrize("name", ["jpeg", "jpg", "rgb8; jpeg compressed bgr8"])
def test_jpeg_messages(name: str) -> None:
    rgb = picture()
    decoded = decode_compressed(name, np.frombuffer(compress(".jpg", rgb), np.uint8))
    assert np.abs(decoded.astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\xff\xd8\xff\xe0 no jpeg"])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match=r"empty|damaged"):
        decode_compressed("jpeg", data)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("name", "red"),
    [
        ("", True),
        ("jpeg", True),
        ("image/jpeg", True),
        ("rgb8; jpeg compressed bgr8", True),
        ("rgb8; jpeg compressed ", True),
        ("bayer_rggb8; jpeg compressed bgr8", True),
        ("yuv422; jpeg compressed bgr8", True),
        ("rgb8; jpeg compressed rgb8", False),
        ("bgr8;jpeg compressed rgb8", False),
    ],
)
def test_channels_are_in_the_order_that_the_format_tells(suffix: str, name: str, red: bool) -> None:
    """Like image_transport's own subscriber: only "bgr" is the channel order of files."""
    rgb = np.full((16, 16, 3), (190, 40, 60), np.uint8)
    decoded = decode_compressed(name, compress(suffix, rgb))
    assert np.abs(decoded.astype(int) - (rgb if red else rgb[..., ::-1])).max() <= 3


@pytest.mark.parametrize(
    "name",
    ["bgr8", "rgb8", "jpeg; bgr8", "jpeg/bgr8", "image/jpeg; quality=80", "camera 3", "h264"],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_data_decides_where_a_driver_writes_something_else(suffix: str, name: str) -> None:
    rgb = np.full((16, 16, 3), (190, 40, 60), np.uint8)
    decoded = decode_compressed(name, compress(suffix, rgb))
    assert np.abs(decoded.astype(int) - rgb).max() <= 3
    gray = np.full((16, 16), 90, np.uint8)
    decoded = decode_compressed(name, cv2.imencode(suffix, gray)[1].tobytes())
    assert np.abs(decoded.astype(int) - 90).max() <= 1


@pytest.mark.parametrize(
    ("name", "suffix", "words"),
    [
        ("bayer_rggb8", ".jpg", "mosaic"),
        ("jpeg; nv12", ".jpg", "not a picture"),
        ("h264", ".tiff", "jpeg, png"),
        ("bayer_rggb8; jpeg compressed bayer_rggb8", ".jpg", "mosaic"),
        ("bayer_gbrg8; jpeg compressed ", ".jpg", "mosaic"),
        ("yuv422_yuy2; jpeg compressed ", ".jpg", "not a picture"),
        ("nv12; png compressed ", ".png", "not a picture"),
        ("16UC1; jpeg compressed mono8", ".jpg", "'16UC1' is not a camera image"),
        ("16UC1; png compressed ", ".png", "'16UC1' is not a camera image"),
        ("32FC1; compressedDepth png", ".png", "jpeg, png"),
        ("rgb8; tiff compressed bgr8", ".tiff", "jpeg, png"),
        ("jpeg", ".bmp", "neither JPEG nor PNG"),
        ("", ".tiff", "neither JPEG nor PNG"),
        ("png", ".webp", "neither JPEG nor PNG"),
    ],
)
def test_what_is_no_picture_of_a_camera_is_refused(name: str, suffix: str, words: str) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    with pytest.raises(FrameError, match=words):
        decode_compressed(name, cv2.imencode(suffix, gray)[1].tobytes())


@pytest.mark.parametrize("encoding", ["yuv422_yuy2", "bayer_rggb8", "mono16"])
@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_what_image_transport_has_made_gray_is_a_gray_picture(encoding: str, codec: str) -> None:
    """Until Iron it does so with YUV, and in all distributions with a mosaic."""
    gray = np.tile(np.arange(0, 240, 15, dtype=np.uint8), (16, 1))
    data = cv2.imencode(f".{codec}", gray)[1].tobytes()
    decoded = decode_compressed(f"{encoding}; {codec} compressed mono8", data)
    assert np.abs(decoded.astype(int) - gray[..., None]).max() <= 3


def test_a_mosaic_in_a_png_is_lossless_and_decoded() -> None:
    for encoding in MOSAICS:
        seen = mosaic(encoding, patches())
        raw = seen.astype(np.uint16) * 257 if encoding.endswith("16") else seen
        png = cv2.imencode(".png", raw)[1].tobytes()
        decoded = decode_compressed(f"{encoding}; png compressed ", png)
        np.testing.assert_array_equal(decoded, decode(encoding, 8, 12, raw.nbytes // 8, 0, raw))


def test_a_16_bit_png_is_on_the_scale_of_its_camera() -> None:
    depth = BitDepth()
    for highest, brightest in ((4000, 250), (400, 25)):
        deep = np.full((8, 8), highest, np.uint16)
        png = cv2.imencode(".png", deep)[1].tobytes()
        assert decode_compressed("mono16; png compressed mono16", png, depth).max() == brightest


def test_a_header_that_tells_a_huge_size_is_refused_before_memory_is_taken() -> None:
    jpeg, png = bytearray(compress(".jpg", picture())), bytearray(compress(".png", picture()))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    png[16:24] = b"\0\1\0\0" * 2
    for data in (jpeg, png):
        with pytest.raises(FrameError, match="at most 67108864 pixels"):
            decode_compressed("", data)


@pytest.mark.parametrize(
    ("name", "data"),
    [("h264", b"\0\0\0\1\x67"), ("16UC1; compressedDepth png", compress(".png", picture()))],
)
def test_other_formats_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(FrameError, match=r"jpeg, png") as caught:
        decode_compressed(name, data)
    assert repr(name) in str(caught.value)


def test_exif_orientation_turns_files_but_not_messages() -> None:
    rgb = picture(48, 64)
    jpeg = compress(".jpg", rgb)
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)
    exif = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    assert decode_compressed("jpeg", turned).shape == (48, 64, 3)
    upright = decode_file(turned)
    assert np.abs(upright.astype(int) - np.rot90(rgb, -1)).mean() < 3
