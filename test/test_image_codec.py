from __future__ import annotations

from array import array
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import (
    ENCODINGS,
    Image,
    decode,
    decode_compressed,
    decode_file,
    decode_mask,
    encode_bgr8,
    encode_mono8,
)
from media_files import picture

# The channel of each byte of a pixel; A is alpha, which is dropped.
LAYOUTS = {"rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA"}


def message(encoding: str, rgb: Image, padding: int, big: bool, rng: np.random.Generator) -> bytes:
    """Lay an image out byte by byte, as the message definition says; the padding is noise."""
    height, width = rgb.shape[:2]
    rows = []
    for y in range(height):
        row = bytearray()
        for x in range(width):
            channels = dict(zip("RGB", rgb[y, x].tolist(), strict=True))
            channels["A"] = int(rng.integers(256))
            if encoding == "mono8":
                row.append(channels["R"])
            elif encoding == "mono16":
                value = channels["R"] << 8 | channels["A"]
                row += value.to_bytes(2, "big" if big else "little")
            else:
                row += bytes(channels[c] for c in LAYOUTS[encoding])
        rows.append(bytes(row) + rng.bytes(padding))
    return b"".join(rows)


@given(
    encoding=st.sampled_from(ENCODINGS),
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
    decoded = decode(encoding, height, width, len(data) // height, int(big), data)
    np.testing.assert_array_equal(decoded, rgb)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous and decoded.flags.writeable and decoded.flags.owndata


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
        ("bayer_rggb8", ("'bayer_rggb8'", "rgb8, bgr8", "debayer")),
        ("yuv422_yuy2", ("'yuv422_yuy2'", "mono16", "rgb8 first")),
        ("nv12", ("'nv12'", "rgb8 first")),
        ("32FC1", ("'32FC1'", "mono8, mono16")),
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


def compress(suffix: str, rgb: Image) -> bytes:
    return bytes(cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes())


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
    with pytest.raises(FrameError, match=r"empty|damaged|decoded"):
        decode_compressed("jpeg", data)


@pytest.mark.parametrize("name", ["h264", "16UC1; compressedDepth png", ""])
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(FrameError, match=r"jpeg, png") as caught:
        decode_compressed(name, compress(".png", picture()))
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


def test_16_bit_gray_files_become_8_bit_rgb() -> None:
    deep = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    _, data = cv2.imencode(".png", deep)
    decoded = decode_file(data)
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], deep >> 8)


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


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_vga_frame_is_quick(encoding: str) -> None:
    step = 640 * {"mono8": 1, "mono16": 2, "rgb8": 3, "bgr8": 3}.get(encoding, 4) + 32
    data = bytes(step * 480)
    best = 1.0
    for _ in range(5):
        start = perf_counter()
        decode(encoding, 480, 640, step, 0, data)
        best = min(best, perf_counter() - start)
    assert best < 0.02  # a loop over pixels takes a second


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
