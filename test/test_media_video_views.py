# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Videos as cameras and editors make them: the frames match those of FFmpeg's own filters."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media import open_source
from magicfuse_ros.media.hdr import Transfer, tone_mapped
from magicfuse_ros.media.source import mostly_missing
from magicfuse_ros.media.video_file import lacks_index, stated_size
from media_files import SECOND, encode, picture, write_video

# From x, y of the stored image to a x + c y, b x + d y; and FFmpeg's filters for it.
VIEWS = {
    "as it is": ((1, 0, 0, 1), "null"),
    "mirrored": ((-1, 0, 0, 1), "hflip"),
    "flipped": ((1, 0, 0, -1), "vflip"),
    "turned by 180": ((-1, 0, 0, -1), "hflip,vflip"),
    "turned right": ((0, 1, -1, 0), "transpose=clock"),
    "turned left": ((0, -1, 1, 0), "transpose=cclock"),
    "transposed": ((0, 1, 1, 0), "transpose=cclock_flip"),
    "transposed the other way": ((0, -1, -1, 0), "transpose=clock_flip"),
}


def shown(path: Path, filters: str) -> Pixels:
    """Return the first frame as FFmpeg shows it after these filters."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = Graph()
        nodes: list[Any] = [graph.add_buffer(template=stream)]
        for step in (*filters.split(","), "format=rgb24"):
            nodes.append(graph.add(*step.split("=", 1)))
        nodes.append(graph.add("buffersink"))
        for node, following in pairwise(nodes):
            node.link_to(following)
        graph.configure()
        graph.push(next(container.decode(stream)))
        frame: Any = graph.pull()
        return np.asarray(frame.to_ndarray(), np.uint8)


def first(path: Path) -> Pixels:
    return next(iter(open_source(path))).image


@pytest.mark.parametrize("view", VIEWS)
def test_every_display_matrix(tmp_path: Path, view: str) -> None:
    (a, b, c, d), filters = VIEWS[view]
    path = write_video(tmp_path / "v.mp4", [0])
    data = bytearray(path.read_bytes())
    one = 1 << 16
    at = data.index(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    data[at : at + 36] = matrix
    expected = shown(path, filters)
    path.write_bytes(data)
    image = first(path)
    assert image.shape == expected.shape and image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).max() <= 2


def encoded(path: Path, image: Any, form: str, codec: str = "ffv1", **options: Any) -> Path:
    kind = "rgb48le" if image.dtype == np.uint16 else "rgb24"
    frame = av.VideoFrame.from_ndarray(image, format=kind).reformat(format=form)
    return encode(path, [frame], codec, form, **options)


@settings(max_examples=12, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (4, 3), (8, 9), (16, 15), (2, 1), (1, 2), (64, 45)]),
    width=st.sampled_from([160, 130, 98]),
)
def test_pixels_become_square(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], width: int
) -> None:
    path = tmp_path_factory.mktemp("v") / "v.mp4"
    encoded(path, picture(48, width), "yuv420p", "mpeg4", sample_aspect_ratio=Fraction(*shape))
    image = first(path)
    expected = shown(path, f"setsar={shape[0]}/{shape[1]},scale=iw*sar:ih")
    assert image.shape == expected.shape == (48, width * shape[0] // shape[1], 3)
    assert np.abs(image.astype(int) - expected).mean() < 2  # it scales before it converts colours


@pytest.mark.parametrize("form", ["yuv422p", "yuv444p10le", "gray", "gray16le", "bgr0"])
def test_pixel_formats(tmp_path: Path, form: str) -> None:
    path = encoded(tmp_path / "v.mkv", picture(), form)
    assert np.abs(first(path).astype(int) - shown(path, "null")).max() <= 1


@pytest.mark.parametrize("transfer", list(Transfer))
def test_hdr_is_tone_mapped_to_what_it_was_made_of(tmp_path: Path, transfer: Transfer) -> None:
    """An SDR picture in an HDR video: its white is the diffuse white of 203 cd/m2."""
    image = picture(48, 64) // 4 * 3  # light above three quarters of white is compressed
    light = (image / 255) ** 2.4
    to_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    light = light @ np.array(to_2020).T
    if transfer == Transfer.PQ:
        power = (light * 203 / 10_000) ** (2610 / 16384)
        code = ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    else:
        scene = light * 0.203
        luminance = scene @ [0.2627, 0.6780, 0.0593]
        scene = scene * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
        logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        code = np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm)
    wide = np.round(code * 65535).astype(np.uint16)
    assert np.abs(tone_mapped(wide, transfer).astype(int) - image).max() <= 3
    options: dict[str, Any] = {"color_primaries": 9, "color_trc": int(transfer)}
    path = encoded(tmp_path / "v.mkv", wide, "gbrp10le", **options)
    assert np.abs(first(path).astype(int) - image).mean() < 3


@settings(max_examples=20, deadline=None)
@given(level=st.integers(0, 65535), transfer=st.sampled_from(list(Transfer)))
def test_hdr_gray_stays_gray_and_brighter_stays_brighter(level: int, transfer: Transfer) -> None:
    pair = np.array([[[level] * 3, [min(65535, level + 600)] * 3]], np.uint16)
    darker, brighter = tone_mapped(pair, transfer)[0].astype(int)
    assert np.ptp(darker) <= 1 and np.ptp(brighter) <= 1
    assert (darker <= brighter).all()


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut(tmp_path: Path, suffix: str, part: float) -> None:
    path = write_video(tmp_path / f"v.{suffix}", range(40), gop_size=8, faststart=True)
    whole = [frame.image for frame in open_source(path)]
    data = path.read_bytes()
    assert stated_size(path) == len(data)
    path.write_bytes(data[: int(part * len(data))])
    source = open_source(path)
    frames = list(source)
    assert 0 < len(frames) < 40 * part + 3
    for expected, frame in zip(whole, frames, strict=False):
        np.testing.assert_array_equal(frame.image, expected)
    (refusal,) = source.refused
    assert refusal.name == f"{len(frames):06d}" and "the file is cut" in refusal.reason
    lost = 40 - len(frames)
    assert source.missing + 1 == (pytest.approx(lost, abs=4) if suffix == "mkv" else lost)
    assert mostly_missing(source, source.missing) == (part == 0.3)


def test_a_frame_that_the_decoder_marks_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", range(24), gop_size=8, faststart=True)
    with av.open(str(path)) as container:
        (packet,) = [p for i, p in enumerate(container.demux(video=0)) if i == 11]
    data = bytearray(path.read_bytes())
    assert packet.pos is not None
    middle = packet.pos + packet.size // 2
    data[middle : middle + packet.size // 4] = bytes(packet.size // 4)
    path.write_bytes(data)
    source = open_source(path)
    frames = list(source)
    assert "000011" in [refusal.name for refusal in source.refused]
    assert len(frames) + len(source.refused) == 24 and source.missing == 0
    assert all(frame.stamp_ns == int(frame.name) * SECOND // 10 for frame in frames)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "h264"])
def test_b_frames_come_in_their_order(tmp_path: Path, suffix: str) -> None:
    if "libx264" not in av.codecs_available:
        pytest.skip("PyAV has no libx264")
    grays = (np.full((48, 64, 3), 20 * i, np.uint8) for i in range(12))
    made = [av.VideoFrame.from_ndarray(gray, format="rgb24") for gray in grays]
    options = {"bf": "3", "b-adapt": "0", "crf": "10"}
    path = encode(tmp_path / f"v.{suffix}", made, "libx264", "yuv420p", 25, options=options)
    frames = list(open_source(path))
    assert [round(frame.image.mean() / 20) for frame in frames] == list(range(12))
    assert [frame.stamp_ns * 25 // SECOND for frame in frames] == list(range(12))


def test_recordings_that_were_joined_have_rising_stamps(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", [0, 1, 2, 4])
    path.write_bytes(2 * path.read_bytes())
    stamps = [frame.stamp_ns * 10 // SECOND for frame in open_source(path)]
    assert len(stamps) == 8 and stamps[:4] == [0, 1, 2, 4]
    assert all(a < b for a, b in pairwise(stamps))


def with_two_sizes(tmp_path: Path) -> Path:
    path = write_video(tmp_path / "v.mjpeg", [0], "mjpeg")
    large = encoded(tmp_path / "b.mjpeg", picture(64, 96), "yuvj420p", "mjpeg")
    path.write_bytes(path.read_bytes() + large.read_bytes())
    return path


def test_a_size_that_changes_on_the_way(tmp_path: Path) -> None:
    source = open_source(with_two_sizes(tmp_path))
    assert [frame.image.shape for frame in source] == [(48, 64, 3), (64, 96, 3)]


def test_an_mp4_without_its_index_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", range(5))
    data = path.read_bytes()
    assert not lacks_index(path)
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(MediaError, match=r"v\.mp4' .* no index \(moov\)"):
        open_source(path)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=80), begin=st.sampled_from([b"\0\0\0\x10ftyp", b"RIFF", b"\x1aE"]))
def test_sizes_of_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, begin: bytes
) -> None:
    path = tmp_path_factory.mktemp("v") / "v.mp4"
    path.write_bytes(begin + data)
    size = stated_size(path)
    assert size is None or size >= 0
    assert lacks_index(path) in (True, False)


def test_a_sensor_of_12_of_16_bits_is_not_black(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 48 * 64).astype(np.uint16).reshape(48, 64)
    frame = av.VideoFrame.from_ndarray(values, format="gray16le")
    path = encode(tmp_path / "v.mkv", [frame], "ffv1", "gray16le")
    np.testing.assert_array_equal(first(path)[..., 0], values >> 4)


def test_frames_with_too_many_pixels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.mp4"
    encoded(path, picture(48, 64), "yuv420p", "mpeg4", sample_aspect_ratio=Fraction(8))
    monkeypatch.setattr("magicfuse_ros.media.video_frame.MAX_PIXELS", 8 * 64 * 48 - 1)
    source = open_source(path)
    assert not list(source)
    assert "512x48 with square pixels; at most 24575 pixels" in source.refused[0].reason
    monkeypatch.setattr("magicfuse_ros.media.video.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError, match="64x48; at most 3071 pixels are decoded"):
        open_source(path)


def test_a_size_that_becomes_too_large_on_the_way_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magicfuse_ros.media.video.MAX_PIXELS", 64 * 48)
    source = open_source(with_two_sizes(tmp_path))
    assert [frame.image.shape for frame in source] == [(48, 64, 3)]
    assert "cannot be decoded" in source.refused[0].reason
