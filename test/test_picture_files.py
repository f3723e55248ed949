# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Picture files of any kind: `magicfuse run` and training read the same pixels."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import BitDepth, decode_file, decode_picture
from magicfuse_ros.image_codec.files import orientation
from media_files import picture

GRAY = np.linspace(0, 1, 48).reshape(6, 8)


def saved(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def coded(suffix: str, pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def pnm(highest: int, magic: bytes = b"P5") -> bytes:
    levels = (GRAY * highest).round().astype(">u2" if highest > 255 else np.uint8)
    levels = levels if magic == b"P5" else levels[..., None].repeat(3, 2)
    header = b"%b\n# by a camera\n8 6\n%d\n" % (magic, highest)
    return bytes(header + levels.tobytes())


@pytest.mark.parametrize("magic", [b"P5", b"P6"])
@pytest.mark.parametrize("highest", [15, 255, 1023, 4095, 16383, 65535])
def test_a_pnm_says_which_level_is_white(highest: int, magic: bytes) -> None:
    decoded = decode_file(pnm(highest, magic))
    steps = 255 / min(highest, 255)
    assert np.abs(decoded[..., 1] - 255 * GRAY).max() <= max(1, steps / 2)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_bits_of_16_bit_pictures_are_found(suffix: str, channels: int, bits: int) -> None:
    levels = (GRAY * (2**bits - 1)).astype(np.uint16)
    stored = levels if channels == 1 else levels[..., None].repeat(channels, 2)
    if channels == 4:
        stored[..., 3] = 65535  # opaque
    decoded = decode_file(coded(suffix, stored))
    np.testing.assert_array_equal(decoded, (levels >> bits - 8)[..., None].repeat(3, 2))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_deep_tiff_in_colour_is_upright_too(orientation: int, turns: int) -> None:
    deep = picture(6, 8).astype(np.uint16) * 257
    data = bytearray(coded(".tiff", deep))
    at = data.index(b"\x1c\x01\x03\0\x01\0\0\0")  # a tag with its default; replace it with another
    data[at], data[at + 8] = 0x12, orientation
    expected = np.rot90(deep[..., ::-1], turns)
    np.testing.assert_array_equal(decode_picture(bytes(data)), expected)


def test_a_deep_tiff_whose_zero_is_white_is_no_negative() -> None:
    levels = (GRAY * 65535).astype(np.uint16)
    data = bytearray(saved(PIL.Image.fromarray(65535 - levels), "tiff"))
    data[data.index(b"\x06\x01\x03\0\x01\0\0\0\x01") + 8] = 0  # PhotometricInterpretation
    np.testing.assert_array_equal(decode_picture(bytes(data)), levels)
    # Pillow does not read big-endian ones.
    big = b"MM\0*\0\0\0\x0a\0\1\0\x08" + b"".join(
        struct.pack(">HHIHH", tag, 3, 1, value, 0)
        for tag, value in ((256, 1), (257, 1), (258, 16), (259, 1), (262, 0), (273, 8), (278, 1))
    )
    big += struct.pack(">HHIII", 279, 4, 1, 2, 0)
    with pytest.raises(FrameError, match="0 is white"):
        decode_picture(big)


def test_a_deep_tiff_with_a_plane_for_each_colour_is_refused() -> None:
    data = bytearray(coded(".tiff", picture(6, 8).astype(np.uint16) * 257))
    data[data.index(b"\x1c\x01\x03\0\x01\0\0\0\x01") + 8] = 2
    with pytest.raises(FrameError, match="a plane for each colour"):
        decode_picture(bytes(data))


def test_a_picture_of_a_phone_is_read_without_a_warning() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 12_000, 9_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert orientation(data) == 1


def test_a_broken_exif_block_costs_no_picture() -> None:
    image = PIL.Image.fromarray(picture(6, 8)[..., ::-1])
    data = saved(image, "PNG", exif=b"Exif\0\0II*\0")
    np.testing.assert_array_equal(decode_picture(data), picture(6, 8)[..., ::-1])
    with pytest.raises(FrameError, match="damaged"):
        decode_picture(saved(image, "WEBP", exif=b"Exif\0\0II*\0"))


def test_pictures_of_one_camera_are_on_one_scale() -> None:
    depth = BitDepth()
    bright, dark = (coded(".png", np.full((4, 4), v, np.uint16)) for v in (4000, 400))
    assert [decode_file(data, depth).max() for data in (bright, dark)] == [250, 25]


def test_a_float_picture_is_0_to_1() -> None:
    decoded = decode_file(saved(PIL.Image.fromarray(GRAY.astype(np.float32)), "tiff"))
    assert np.abs(decoded[..., 0] - 255 * GRAY).max() <= 0.5
    for value in (-0.1, 300.0, np.nan):
        odd = GRAY.astype(np.float32)
        odd[2, 3] = value
        with pytest.raises(FrameError, match="expected 0 to 1"):
            decode_file(saved(PIL.Image.fromarray(odd), "tiff"))


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_whatever_their_format(kind: str, orientation: int) -> None:
    rgb = picture(32, 48)
    turned = PIL.Image.fromarray(rgb)
    if orientation > 1:  # as a camera stores it if held this way
        inverse = {6: 8, 8: 6}.get(orientation, orientation)
        exif = PIL.Image.Exif()
        exif[0x112] = inverse
        turned.info["exif"] = exif.tobytes()
        turned = PIL.ImageOps.exif_transpose(turned)
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    decoded = decode_file(saved(turned, kind, exif=exif, **options))
    assert decoded.shape == rgb.shape
    assert np.abs(decoded.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize(
    ("kind", "mode", "shape"),
    [
        ("png", "P", (48, 64, 3)),
        ("png", "LA", (48, 64, 4)),
        ("png", "1", (48, 64)),
        ("png", "RGBA", (48, 64, 4)),
        ("bmp", "L", (48, 64)),
        ("bmp", "RGB", (48, 64, 3)),
        ("tiff", "RGB", (48, 64, 3)),
        ("webp", "RGB", (48, 64, 3)),
        ("jpeg", "L", (48, 64)),
        ("jpeg", "CMYK", (48, 64, 3)),
    ],
)
def test_every_mode_is_read(kind: str, mode: str, shape: tuple[int, ...]) -> None:
    data = saved(PIL.Image.fromarray(picture()).convert(mode), kind)
    assert decode_picture(data).shape == shape
    decoded = decode_file(data)
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decoded.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm"])
def test_half_a_picture_is_refused(suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    data = coded(suffix, noise)
    decode_file(data)
    for part in (0.2, 0.5, 0.9):
        with pytest.raises(FrameError, match=r"damaged|cannot be decoded"):
            decode_file(data[: int(part * len(data))])


def test_a_flipped_bit_in_a_png_is_damage() -> None:
    data = bytearray(coded(".png", picture()))
    data[len(data) // 2] ^= 1
    with pytest.raises(FrameError, match="checksum"):
        decode_file(bytes(data))


@pytest.mark.parametrize("data", [b"", b"no picture", b"GIF89a" + bytes(40), b"%PDF-1.4"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match=r"empty|no image"):
        decode_file(data)


def test_a_tiff_that_tells_a_huge_size_is_refused_before_memory_is_taken() -> None:
    data = bytearray(coded(".tiff", np.zeros((4, 4, 3), np.float32)))
    (at,) = struct.unpack_from("<I", data, 4)
    for entry in range(at + 2, at + 26, 12):  # width and height come first
        tag, *_ = struct.unpack_from("<H", data, entry)
        assert tag in (256, 257)
        struct.pack_into("<HII", data, entry + 2, 4, 1, 1 << 14)
    with pytest.raises(FrameError, match="16384x16384; at most 134217728 pixels"):
        decode_picture(bytes(data))
    struct.pack_into("<H", data, at + 2, 259)  # another tag in place of the width
    with pytest.raises(FrameError, match="damaged"):
        decode_picture(bytes(data))
