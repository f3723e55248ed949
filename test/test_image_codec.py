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

from array import array
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_messages import MOSAICS, compress, mosaic, patches
from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import (
    ENCODINGS,
    BitDepth,
    Pixels,
    decode,
    decode_mask,
    encode_bgr8,
    encode_mono8,
)
from media_files import picture

# The channel of each value of a pixel; A is alpha, which is dropped.
LAYOUTS = {"rgb": "RGB", "bgr": "BGR", "rgba": "RGBA", "bgra": "BGRA", "mono": "R"}
PLAIN = [f"{name}{bits}" for name in LAYOUTS for bits in (8, 16)]
YUV = ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"]


def message(encoding: str, rgb: Pixels, padding: int, big: bool, rng: np.random.Generator) -> bytes:
    """Lay out an image byte by byte, as in the message definition; the padding is noise."""
    deep = encoding.endswith("16")
    layout = LAYOUTS[encoding.rstrip("0123456789")]
    rows = []
    for pixels in rgb.tolist():
        row = bytearray()
        for pixel in pixels:
            channels = dict(zip("RGB", pixel, strict=True)) | {"A": int(rng.integers(256))}
            for c in layout:
                value = channels[c] << 8 | int(rng.integers(256)) if deep else channels[c]
                row += value.to_bytes(2 if deep else 1, "big" if big else "little")
        rows.append(bytes(row) + rng.bytes(padding))
    return b"".join(rows)


@given(
    encoding=st.sampled_from(PLAIN),
    height=st.integers(1, 6),
    width=st.integers(1, 7),
    padding=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_layout_gives_the_pixels_back(
    encoding: str, height: int, width: int, padding: int, big: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    if encoding.startswith("mono"):
        rgb[..., 1] = rgb[..., 2] = rgb[..., 0]
    data = message(encoding, rgb, padding, big, rng)
    step = len(data) // height
    decoded = decode(encoding, height, width, step, int(big), data, BitDepth(16))
    np.testing.assert_array_equal(decoded, rgb)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous and decoded.flags.writeable and decoded.flags.owndata


@pytest.mark.parametrize(("name", "same"), [("8UC1", "mono8"), ("8UC3", "bgr8"), ("8UC4", "bgra8")])
def test_opencvs_names_are_in_its_order(name: str, same: str) -> None:
    data = np.random.default_rng(0).bytes(4 * 5 * 4)
    fields = (4, 5, 20, 0, data)
    np.testing.assert_array_equal(decode(name, *fields), decode(same, *fields))


def test_encodings_are_those_that_are_tested_here() -> None:
    assert set(ENCODINGS) == {*PLAIN, *YUV, *MOSAICS, "8UC1", "8UC3", "8UC4"}


def yuv_message(encoding: str, rgb: Pixels, padding: int) -> tuple[bytes, int]:
    """Return the data and the step of an image with patches of even size."""
    height, width = rgb.shape[:2]
    r, g, b = np.moveaxis(rgb.astype(float), 2, 0)  # BT.601, Y from 16 to 235
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    yuv = np.dstack([y, u, v]).round().astype(np.uint8)
    pairs = np.where(np.arange(width) % 2, yuv[..., 2], yuv[..., 1])
    if encoding in ("yuv422", "uyvy"):
        planes = [np.dstack([pairs, yuv[..., 0]]).reshape(height, -1)]
    elif encoding in ("yuyv", "yuv422_yuy2"):
        planes = [np.dstack([yuv[..., 0], pairs]).reshape(height, -1)]
    else:
        colors = yuv[..., [2, 1] if encoding == "nv21" else [1, 2]]
        colors = colors if encoding == "nv24" else colors[::2, ::2]
        planes = [yuv[..., 0], colors.reshape(len(colors), -1)]
    padded = [np.pad(p, ((0, 0), (0, padding * p.shape[1] // planes[0].shape[1]))) for p in planes]
    return b"".join(p.tobytes() for p in padded), padded[0].shape[1]


@pytest.mark.parametrize("encoding", YUV)
@pytest.mark.parametrize("padding", [0, 4])
def test_yuv_images_have_their_colours(encoding: str, padding: int) -> None:
    data, step = yuv_message(encoding, patches(), padding)
    decoded = decode(encoding, 8, 12, step, 0, data)
    assert np.abs(decoded.astype(int) - patches()).max() <= 3


@pytest.mark.parametrize("encoding", ["yuv422_yuy2", "uyvy"])
def test_an_image_that_was_republished_keeps_only_the_name_of_its_encoding(encoding: str) -> None:
    """image_transport's republisher gives BGR (Humble: gray) the encoding of the camera."""
    rgb = picture(16, 20)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    np.testing.assert_array_equal(decode(encoding, 16, 20, 60, 0, bgr.tobytes()), rgb)
    gray = np.ascontiguousarray(rgb[..., 0])
    decoded = decode(encoding, 16, 20, 20, 0, gray.tobytes())
    np.testing.assert_array_equal(decoded, np.dstack([gray] * 3))


def test_a_jpeg_among_raw_images_is_named() -> None:
    """usb_cam with pixel_format raw_mjpeg."""
    data = compress(".jpg", picture(32, 64)).ljust(32 * 64 * 2, b"\0")
    with pytest.raises(FrameError, match="the data is a JPEG"):
        decode("yuv422", 32, 64, 128, 0, data)
    decode("yuv422", 32, 64, 128, 0, b"\xff\xd8\xff\xe0" * 1024)  # pixels


def test_the_rows_of_a_plane_may_be_counted_into_those_of_the_image() -> None:
    data, _ = yuv_message("nv12", patches(), 0)
    decoded = decode("nv12", 8, 12, 18, 0, data)
    assert np.abs(decoded.astype(int) - patches()).max() <= 3


@pytest.mark.parametrize("encoding", MOSAICS)
def test_mosaics_have_their_colours(encoding: str) -> None:
    seen = mosaic(encoding, patches())
    data = seen.astype("<u2") * 257 if encoding.endswith("16") else seen
    decoded = decode(encoding, 8, 12, data.nbytes // 8, 0, data)
    inner = np.s_[1:3, 1:5], np.s_[5:7, 1:5], np.s_[1:3, 7:11], np.s_[5:7, 7:11]
    for patch in inner:  # colours mix at the borders of the patches
        np.testing.assert_array_equal(decoded[patch], patches()[patch])


@pytest.mark.parametrize(
    ("encoding", "height", "width", "words"),
    [
        ("yuyv", 2, 3, "even width"),
        ("nv12", 3, 4, "even width and height"),
        ("nv21", 4, 3, "even width and height"),
        ("bayer_rggb8", 1, 4, "2x2"),
        ("nv24", 0, 4, "4x0"),
    ],
)
def test_sizes_that_an_encoding_cannot_have_are_refused(
    encoding: str, height: int, width: int, words: str
) -> None:
    with pytest.raises(FrameError, match=words):
        decode(encoding, height, width, 2 * width, 0, bytes(2 * width * height))


def levels(highest: int) -> bytes:
    return np.linspace(0, highest, 20).astype("<u2").tobytes()


@pytest.mark.parametrize(("highest", "bits"), [(1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_the_bits_of_a_camera_are_found(highest: int, bits: int) -> None:
    depth = BitDepth()
    decoded = decode("mono16", 4, 5, 10, 0, levels(highest), depth)
    assert (decoded.max(), depth.bits, str(depth)) == (255, bits, f"{bits} of 16")


def shown(depth: BitDepth, *highest: int) -> list[int]:
    """Return the brightest gray level of images whose highest values these are."""
    return [int(decode("mono16", 4, 5, 10, 0, levels(value), depth).max()) for value in highest]


def test_the_scale_of_16_bit_images_never_goes_down() -> None:
    assert shown(BitDepth(), 4000, 800, 400, 4000) == [250, 50, 25, 250]


def test_a_scale_of_16_bit_images_that_is_too_low_goes_up_after_three_images() -> None:
    assert shown(BitDepth(), 0, 800, 4000, 4000, 4000, 800) == [0, 200, 255, 255, 250, 50]
    alternating = [800, 4000] * 4  # two exposures
    assert shown(BitDepth(), *alternating)[-2:] == [50, 250]
    assert shown(BitDepth(intact=True), 800, 4000, 800) == [200, 250, 50], "kept files"


def camera_of_12_bits() -> np.ndarray:
    return np.linspace(0, 4095, 4000).astype("<u2").reshape(40, 100)


def decoded_on(depth: BitDepth, values: np.ndarray) -> np.ndarray:
    return decode("mono16", 40, 100, 200, 0, values.tobytes(), depth)


def test_single_damaged_pixels_do_not_darken_a_camera() -> None:
    depth, values = BitDepth(), camera_of_12_bits()
    values[3, 5] = values[30, 70] = 65535
    for _ in range(12):
        decoded = decoded_on(depth, values)
    assert depth.bits == 12 and decoded[3, 5].max() == 255
    assert decoded[39].mean() > 240
    values[:2] = 65535  # 5 % of the pixels
    for _ in range(3):
        decoded_on(depth, values)
    assert depth.bits == 16


def test_torn_images_do_not_darken_a_camera() -> None:
    depth, whole = BitDepth(), camera_of_12_bits()
    torn = whole.copy()
    torn[:3] = np.random.default_rng(0).integers(0, 65536, (3, 100))
    before = decoded_on(depth, whole)
    for _ in range(5):
        for image in (torn, torn, *[whole] * 8):
            decoded_on(depth, image)
    np.testing.assert_array_equal(decoded_on(depth, whole), before)
    assert depth.bits == 12


def test_the_bits_of_a_camera_can_be_told() -> None:
    depth = BitDepth(12)
    assert decode("mono16", 4, 5, 10, 0, levels(800), depth).max() == 50
    assert decode("mono16", 4, 5, 10, 0, levels(65535), depth).max() == 255
    assert depth.bits == 12
    opaque = np.full((4, 5, 4), 65535, "<u2")
    opaque[..., :3] = 2048
    assert decode("rgba16", 4, 5, 40, 0, opaque.tobytes(), BitDepth()).max() == 128, "12 bits"
    for bits in (1, 4, 7, 8, 9):
        few = decode("mono16", 4, 5, 10, 0, levels(65535), BitDepth(bits))
        assert few.max() == 255, f"white of {bits} bits"
    assert decode("mono16", 4, 5, 10, 0, levels(5), BitDepth(4)).max() == 85, "5 of 15"


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_encode_and_decode_are_inverse(height: int, width: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    color = encode_bgr8(rgb)
    assert (color.height, color.width, color.step) == (height, width, 3 * width)
    np.testing.assert_array_equal(decode("bgr8", *color[:3], 0, color.data), rgb)
    gray = encode_mono8(rgb[..., 1])
    assert (gray.height, gray.width, gray.step) == (height, width, width)
    np.testing.assert_array_equal(decode("mono8", *gray[:3], 0, gray.data)[..., 2], rgb[..., 1])


def test_encoded_data_fills_a_message_as_it_is() -> None:
    image = picture(6, 8)
    for encoded in (encode_bgr8(image[:, ::2]), encode_mono8(image[:, ::2, 0])):
        data: Any = encoded.data
        buffer = array("B")
        buffer.frombytes(data)
        assert len(buffer) == encoded.height * encoded.step


def test_any_buffer_is_taken() -> None:
    rgb = picture(4, 5)
    data = rgb.tobytes()
    buffers: list[Any] = [data, bytearray(data), memoryview(data), array("B", data), rgb]
    for buffer in buffers:
        np.testing.assert_array_equal(decode("rgb8", 4, 5, 15, 0, buffer), rgb)


def test_the_result_does_not_share_memory_with_the_message() -> None:
    data = bytearray(picture(4, 5).tobytes())
    decoded = decode("rgb8", 4, 5, 15, 0, data)
    before = decoded.copy()
    data[:] = bytes(len(data))
    np.testing.assert_array_equal(decoded, before)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("bayer_xyzw8", ("'bayer_xyzw8'", "rgb8, bgr8", "image_proc")),
        ("i420", ("'i420'", "mono16", "rgb8 first")),
        ("16UC1", ("'16UC1'", "depth")),
        ("32FC1", ("'32FC1'", "depth")),
        ("BGR8", ("'BGR8'", "bgr8")),
        ("", ("''", "bgr8")),
    ],
)
def test_other_encodings_are_refused(encoding: str, words: tuple[str, ...]) -> None:
    with pytest.raises(FrameError) as caught:
        decode(encoding, 2, 2, 6, 0, bytes(12))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("height", "width", "step", "length", "words"),
    [
        (4, 5, 15, 59, ("59", "60")),
        (4, 5, 15, 61, ("61", "60")),
        (4, 5, 16, 60, ("60", "64")),
        (4, 5, 15, 0, ("0 bytes", "60")),
        (4, 5, 14, 56, ("step is 14", "15")),
        (0, 5, 15, 0, ("5x0",)),
        (4, 0, 0, 0, ("0x4",)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    height: int, width: int, step: int, length: int, words: tuple[str, ...]
) -> None:
    with pytest.raises(FrameError) as caught:
        decode("bgr8", height, width, step, 0, bytes(length))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((4, 5), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
    ],
)
def test_encode_bgr8_refuses_other_arrays(image: Any) -> None:
    with pytest.raises(FrameError, match=r"expected uint8 \(H, W, 3\)"):
        encode_bgr8(image)


@pytest.mark.parametrize("image", [np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), bool)])
def test_encode_mono8_refuses_other_arrays(image: Any) -> None:
    with pytest.raises(FrameError, match=r"expected uint8 \(H, W\)"):
        encode_mono8(image)


@pytest.mark.parametrize("encoding", [*PLAIN, "yuyv", "bayer_rggb8", "bayer_rggb16"])
def test_a_vga_frame_is_quick(encoding: str) -> None:
    step = 640 * 8 + 32
    data = bytes(step * 480)
    best = 1.0
    for _ in range(5):
        start = perf_counter()
        decode(encoding, 480, 640, step, 0, data)
        best = min(best, perf_counter() - start)
    assert best < 0.1  # a loop over pixels takes a second


def test_a_mask_is_read_without_its_padding() -> None:
    data = bytes(range(20))
    for encoding in ("mono8", "8UC1"):
        mask = decode_mask(encoding, 4, 3, 5, data)
        np.testing.assert_array_equal(mask, np.arange(20).reshape(4, 5)[:, :3])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("bgr8", 4, 3, 9), "'bgr8'; expected mono8"),
        (("mono8", 0, 3, 3), "3x0"),
        (("mono8", 4, 3, 2), "step is 2"),
        (("mono8", 4, 3, 4), "20 bytes long"),
    ],
)
def test_what_is_no_mask_is_refused(fields: tuple[str, int, int, int], words: str) -> None:
    with pytest.raises(FrameError, match=words):
        decode_mask(*fields, bytes(20))
