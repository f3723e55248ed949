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

from pathlib import Path

import av
import numpy as np
import pytest

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import open_source
from magicfuse_ros.media.panels import PANEL_TITLES, PanelPage
from magicfuse_ros.media.video_writer import VideoWriter
from media_files import SECOND, picture, write_video


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "MOV"])
def test_frames_and_stamps(tmp_path: Path, suffix: str) -> None:
    source = open_source(write_video(tmp_path / f"v.{suffix}", range(5)))
    assert (len(source), round(source.frame_rate or 0, 6)) == (5, 10)
    for _ in range(2):
        frames = list(source)
        assert [frame.name for frame in frames] == [f"{i:06d}" for i in range(5)]
        assert [frame.stamp_ns for frame in frames] == [i * SECOND // 10 for i in range(5)]
        assert source.refused == []
    for i, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - picture(seed=i)).mean() < 9
        assert frame.image.flags.c_contiguous


def test_stamps_are_the_presentation_times(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.mp4", [0, 1, 5, 6]))
    assert [frame.stamp_ns * 10 // SECOND for frame in source] == [0, 1, 5, 6]


def test_stamps_count_from_the_start_of_the_stream(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.ts", [50, 51, 53]))
    assert [frame.stamp_ns * 10 // SECOND for frame in source] == [0, 1, 3]


def test_a_stream_without_times_is_counted_by_its_rate(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.mjpeg", range(3), "mjpeg"))
    assert len(source) == 3
    assert [frame.stamp_ns for frame in source] == [0, SECOND // 25, 2 * SECOND // 25]


def test_a_damaged_piece_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", range(30), "png")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    start = packets[9].pos
    assert start is not None
    data[start + 100 : start + 200] = b"\xff" * 100
    path.write_bytes(data)
    source = open_source(path)
    frames = list(source)
    assert [refusal.name for refusal in source.refused] == ["000009"]
    assert "cannot be decoded" in source.refused[0].reason
    assert [int(frame.name) for frame in frames] == [i for i in range(30) if i != 9]
    assert all(frame.stamp_ns == int(frame.name) * SECOND // 10 for frame in frames)


def test_files_without_video_are_refused(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"no video " * 1000)
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    no_frame = tmp_path / "no_frame.avi"
    with av.open(str(no_frame), "w") as container:
        picture_stream = container.add_stream("mpeg4", rate=10)
        picture_stream.width, picture_stream.height = 64, 48
        picture_stream.pix_fmt = "yuv420p"
        container.start_encoding()
    no_codec = write_video(tmp_path / "no_codec.avi", [0, 1])
    no_codec.write_bytes(no_codec.read_bytes().replace(b"FMP4", b"zzzz"))
    for path, word in [
        (garbage, "cannot be read as a video"),
        (no_codec, "its codec is unknown"),
        (sound, "no video stream"),
        (no_frame, "holds no frame"),
    ]:
        with pytest.raises(MediaError, match=word) as caught:
            open_source(path)
        assert str(path) in str(caught.value)


def test_written_video_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "v.mp4"
    with VideoWriter(path, 10) as video:
        for i in range(4):
            video.write(picture(48, 64, seed=i), i * SECOND // 10)
    source = open_source(path)
    assert (len(source), round(source.frame_rate or 0, 6)) == (4, 10)
    for i, frame in enumerate(source):
        assert frame.stamp_ns == i * SECOND // 10
        assert np.abs(frame.image.astype(int) - picture(48, 64, seed=i)).mean() < 9
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_a_relative_name_with_a_colon_is_a_file_and_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("2026-11-29T10:30:00.mp4")
    with VideoWriter(name, 10) as video:
        video.write(picture(48, 64), 0)
    assert len(open_source(name)) == 1


def test_a_title_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "cafe"
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height = 64, 48
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(48, 64), "rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"cafe", b"caf\xe9"))
    assert len(list(open_source(path))) == 1


def test_gaps_stay_and_stamps_that_stand_still_follow_on(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 10) as video:
        for stamp in (70, 70, 70, 80, 81):  # tenths of a second
            video.write(picture(), stamp * SECOND // 10)
    stamps = [frame.stamp_ns * 10 // SECOND for frame in open_source(path)]
    assert stamps == [0, 1, 2, 10, 11]


@pytest.mark.parametrize("rate", [29.97, 30000 / 1001, 12.345678, 0.5])
def test_fractional_rates(tmp_path: Path, rate: float) -> None:
    path = tmp_path / "v.mp4"
    with VideoWriter(path, rate) as video:
        for i in range(5):
            video.write(picture(), round(i * SECOND / rate))
    stamps = [frame.stamp_ns for frame in open_source(path)]
    assert stamps == pytest.approx([i * SECOND / rate for i in range(5)], abs=SECOND / rate / 10)


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 10) as video:
        video.write(picture(47, 63), 0)
    (frame,) = open_source(path)
    assert frame.image.shape == (48, 64, 3)
    assert np.abs(frame.image[:47, :63].astype(int) - picture(47, 63)).mean() < 9


def test_mpeg4_where_libx264_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 29.97) as video:
        video.write(picture(), 0)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(list(open_source(path))) == 1


def test_a_video_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"frame_rate of video .*v\.mp4' is 0"):
        VideoWriter(tmp_path / "v.mp4", 0)
    (tmp_path / "file").touch()
    video = VideoWriter(tmp_path / "file" / "v.mp4", 10)
    with pytest.raises(MediaError, match=r"cannot write .*v\.mp4"):
        video.write(picture(), 0)
    with (
        pytest.raises(MediaError, match=r"\(40, 64, 3\); expected \(48, 64, 3\)"),
        VideoWriter(tmp_path / "size.mp4", 10) as sizes,
    ):
        sizes.write(picture(48, 64), 0)
        sizes.write(picture(40, 64), 0)
    assert len(list(open_source(tmp_path / "size.mp4"))) == 1


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 10):
        pass
    assert not (tmp_path / "v.mp4").exists()


def test_a_video_of_panels_shows_every_image_in_its_place(tmp_path: Path) -> None:
    colors = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30), (220, 30, 220)]
    images = [np.full((48, 64, 3), color, np.uint8) for color in colors]
    images[2] = np.full((48, 64), 128, np.uint8)
    colors[2] = (128, 128, 128)
    path = tmp_path / "v.mp4"
    panels = PanelPage(PANEL_TITLES, (368, 276), legend=[("road", (128, 64, 128))])
    with VideoWriter(path, 10) as video:
        for i in range(3):
            video.write(panels.render([images]), i * SECOND // 10)
    frames = list(open_source(path))
    assert len(frames) == 3
    page = frames[-1].image.astype(int)
    assert page.shape[0] % 2 == page.shape[1] % 2 == 0
    middle = page[page.shape[0] // 2]
    for i, color in enumerate(colors):
        x = round((i + 0.5) * page.shape[1] / 5)
        assert np.abs(middle[x] - color).max() < 12, (i, middle[x])
