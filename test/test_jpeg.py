# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""JPEGs as USB cameras send them: odd but complete ones are decoded, truncated ones are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import PIL.Image
import pytest

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import Pixels, decode_compressed, decode_file
from magicfuse_ros.image_codec.jpeg import read_header

DHT, APP0, RST2, SOS, EOI = (b"\xff" + bytes([marker]) for marker in (0xC4, 0xE0, 0xD2, 0xDA, 0xD9))


def street() -> Pixels:
    """Return a picture, 240x320 RGB, with some detail everywhere."""
    numbers = np.random.default_rng(0)
    coarse = numbers.integers(0, 256, (12, 16, 3), np.uint8)
    fine = numbers.normal(0, 8, (240, 320, 3))
    return np.asarray((cv2.resize(coarse, (320, 240)) + fine).clip(0, 255), np.uint8)


STREET = street()


def saved(image: Pixels = STREET, restarts: int = 0, **options: object) -> bytes:
    if restarts:
        flags = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, restarts]
        return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), flags)[1].tobytes()
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "jpeg", **{"quality": 90, **options})
    return file.getvalue()


KINDS = {
    "4:2:0": saved(),
    "4:2:2": saved(subsampling=1),
    "4:4:4": saved(subsampling=0),
    "gray": saved(np.ascontiguousarray(STREET[..., 1])),
    "progressive": saved(progressive=True),
    "optimized": saved(optimize=True),
    "progressive, half of it even": saved(
        np.vstack([STREET // 2 * 0 + 255, STREET]), progressive=True
    ),
    "restart markers": saved(restarts=20),
    "restarts in the middle of a row": saved(restarts=7),
    "odd size": saved(STREET[:237, :315]),
    "tiny": saved(STREET[:1, :1]),
    "even": saved(np.full((240, 320, 3), 90, np.uint8), optimize=True),
}
COMMENT_WITH_END = b"\xff\xfe\0\4" + EOI
PLAIN, RESTARTS = KINDS["4:2:0"], KINDS["restart markers"]


def before(data: bytes, marker: bytes, extra: bytes) -> bytes:
    at = data.index(marker, read_header(data).scan if marker in (RST2, EOI) else 2)
    return data[:at] + extra + data[at:]


def without(data: bytes, marker: bytes) -> bytes:
    while marker in data[: read_header(data).scan]:
        at = data.index(marker)
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    return data


def as_avi(data: bytes) -> bytes:
    plain = without(without(data, DHT), APP0)
    return plain[:2] + APP0 + b"\0\x10AVI1" + bytes(10) + plain[2:]


ODD = {
    "bytes before a restart marker": before(RESTARTS, RST2, b"\x12\x34\x56"),
    "bytes before the end marker": before(PLAIN, EOI, b"\x12\x34"),
    "bytes before a segment": before(PLAIN, DHT, b"\0\x01"),
    "fill before the end marker": before(PLAIN, EOI, b"\xff\xff\xff"),
    "no end marker": PLAIN[:-2],
    "no end marker, zeros to the end of the buffer": PLAIN[:-2] + bytes(2000),
    "no end marker, bytes of the camera": PLAIN[:-2] + b"dhav1234",
    "zeros behind": PLAIN + bytes(2000),
    "another file behind": PLAIN + RESTARTS[: len(RESTARTS) // 2],
    "no Huffman tables": without(PLAIN, DHT),
    "no Huffman tables nor end marker": without(PLAIN, DHT)[:-2],
    "AVI1": as_avi(PLAIN),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whole_ones_are_decoded(kind: str) -> None:
    decoded = decode_compressed("jpeg", KINDS[kind])
    expected = np.asarray(PIL.Image.open(io.BytesIO(KINDS[kind])).convert("RGB"))
    assert np.abs(decoded.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("kind", ODD)
def test_odd_but_whole_ones_are_decoded(kind: str) -> None:
    plain = decode_compressed("jpeg", RESTARTS if "restart" in kind else PLAIN)
    np.testing.assert_array_equal(decode_compressed("jpeg", ODD[kind]), plain)
    np.testing.assert_array_equal(decode_file(ODD[kind]), plain)


@pytest.mark.parametrize("restarts", [0, 20])
def test_no_zeros_behind_print_a_warning_for_each_image(
    restarts: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """As cameras fill their buffers, with and without an end marker; libjpeg prints it."""
    for brightness in range(40):  # so that the coded data ends in different ways
        whole = saved(STREET // 2 + np.uint8(brightness), restarts)
        plain = decode_compressed("jpeg", whole)
        for data in (whole + bytes(2000), whole[:-2] + bytes(2000), whole[:-2] + b"\0", whole[:-2]):
            np.testing.assert_array_equal(decode_compressed("jpeg", data), plain)
    assert capfd.readouterr().err == ""


def hole(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(2000) + data[at + 2000 :]


def noise(data: bytes, at: int) -> bytes:
    return data[:at] + np.random.default_rng(at).bytes(1000) + data[at + 1000 :]


DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda data, at: data[:at],
    "cut and ended": lambda data, at: data[:at] + EOI,
    "cut, zeros to the end of the buffer": lambda data, at: data[:at] + bytes(len(data)),
    "hole": hole,
    "noise": noise,
    "packet missing": lambda data, at: data[:at] + data[at + 1000 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("tiny", "even")])
def test_damaged_ones_are_refused(kind: str, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent of OpenCV's warnings: versions up to 4.10 decode all of them silently."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: STREET)
    data = KINDS[kind]
    scan = read_header(data).scan
    for part in (0.1, 0.4, 0.7, 0.9):
        at = round(scan + part * (len(data) - scan))
        with pytest.raises(FrameError, match="damaged or cut"):
            decode_compressed("jpeg", DAMAGES[damage](data, at))
        if damage == "cut":
            with pytest.raises(FrameError, match="damaged or cut"):
                decode_file(data[:at])


def test_a_header_that_is_cut_is_refused() -> None:
    for end in range(3, read_header(PLAIN).scan, 5):
        with pytest.raises(FrameError, match="damaged or cut"):
            decode_compressed("jpeg", PLAIN[:end])


def test_a_progressive_one_with_very_many_scans_is_refused() -> None:
    data = KINDS["progressive"]
    last = data.rindex(SOS)
    end = data.rindex(EOI)
    many = data[:end] + data[last:end] * 100 + EOI
    hidden = data[:end] + COMMENT_WITH_END + data[last:end] * 100 + EOI
    for bomb in (many, hidden):
        with pytest.raises(FrameError, match="more than 100 scans; a picture has about 10"):
            decode_compressed("jpeg", bomb)


def test_what_follows_the_end_are_no_scans() -> None:
    np.testing.assert_array_equal(
        decode_compressed("jpeg", PLAIN + SOS * 200), decode_compressed("jpeg", PLAIN)
    )
