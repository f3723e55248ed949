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

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from bag_files import mcap
from image_messages import compress
from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import open_source
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.bag_reader import (
    CAMERA_INFO,
    COMPRESSED,
    RAW,
    header_stamp_ns,
    open_bag,
)
from magicfuse_ros.media.mcap_file import Channel, McapFile
from magicfuse_ros.media.sqlite_file import SqliteFile
from magicfuse_ros.media.zstandard import zstd
from media_files import (
    SECOND,
    TYPES,
    Message,
    compressed_message,
    header,
    image_message,
    picture,
    write_bag,
)
from replay_bags import camera_info

START = 1_700_000_000 * SECOND
SUFFIXES = {StoragePlugin.MCAP: "mcap", StoragePlugin.SQLITE3: "db3"}


def camera(topic: str = "/camera/image_raw", count: int = 4) -> list[Message]:
    """Images at 20 Hz, each recorded 5 ms after its stamp."""
    times = [START + i * SECOND // 20 for i in range(count)]
    return [
        (topic, time + 5_000_000, image_message(picture(seed=i), time))
        for i, time in enumerate(times)
    ]


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_bag_folder_and_its_file(tmp_path: Path, storage: StoragePlugin) -> None:
    other: Message = ("/odometry", START, header(START))
    bag = write_bag(tmp_path / "bag", [other, *camera()], storage)
    (file,) = bag.glob(f"*.{SUFFIXES[storage]}")
    for path in (bag, file):
        source = open_source(path)
        assert isinstance(source, BagSource)
        assert (source.name, source.topic) == (str(path), "/camera/image_raw")
        assert (len(source), round(source.frame_rate or 0, 6)) == (4, 20)
        for _ in range(2):
            frames = list(source)
            assert [f.name for f in frames] == ["000000", "000001", "000002", "000003"]
            assert [f.stamp_ns for f in frames] == [START + i * SECOND // 20 for i in range(4)]
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(seed=i))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images(tmp_path: Path, suffix: str) -> None:
    data = compress(suffix, picture())
    name = {".jpg": "bgr8; jpeg compressed bgr8", ".png": "png"}[suffix]
    bag = write_bag(tmp_path / "bag", [("/image", START, compressed_message(data, START, name))])
    (frame,) = open_source(bag)
    assert np.abs(frame.image.astype(int) - picture()).mean() < 3


def test_the_recording_time_stands_in_for_a_missing_stamp(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [("/image", START, image_message(picture(), 0))])
    source = open_source(bag)
    assert [frame.stamp_ns for frame in source] == [START]
    assert source.frame_rate is None


def test_several_topics_are_asked_for(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [*camera("/left"), *camera("/right", 2)])
    with pytest.raises(MediaError, match=r"several image topics; .* one of /left, /right$"):
        open_source(bag)
    assert len(list(open_source(bag, "/right"))) == 2
    with pytest.raises(MediaError, match=r"topic is '/rear'; the image topics .* /left, /right"):
        open_source(bag, "/rear")


@pytest.mark.parametrize(
    ("topic", "played"),
    [
        ("/camera/image_raw", "/camera/image_raw"),
        ("/cam-0/image_raw", "/cam_0/image_raw"),
        ("//2nd cam/image/", "/_2nd_cam/image"),
        ("/", "/image"),
    ],
)
def test_a_name_that_ros_forbids_is_played_as_one_that_it_allows(
    tmp_path: Path, topic: str, played: str
) -> None:
    source = BagSource(write_bag(tmp_path / "bag", camera(topic, 1)))
    assert (source.topic, source.played_topic) == (topic, played)


@pytest.mark.parametrize(
    ("topic", "info"),
    [
        ("/camera/image_raw", "/camera/camera_info"),
        ("camera/image_raw", "camera/camera_info"),  # ROS 1
        ("/image", "/camera_info"),
        ("image", "camera_info"),
    ],
)
def test_the_camera_info_beside_an_image_has_its_form_of_name(
    tmp_path: Path, topic: str, info: str
) -> None:
    recorded = (info, START, camera_info(START, focal=1.0))
    source = BagSource(write_bag(tmp_path / "bag", [recorded, *camera(topic, 1)]))
    assert [message.channel.topic for message in source.raw_messages()] == [info, topic]
    assert len(source.calibrations([])) == 1


def test_a_type_of_which_nothing_was_recorded_is_not_played(tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=9) as writer:
        for kind in (COMPRESSED, RAW):
            topic = writer.add_connection("/image", kind, typestore=TYPES)
        writer.write(topic, START, TYPES.serialize_cdr(image_message(picture(), START), RAW))
    source = BagSource(tmp_path / "bag")
    source.check_one_type()
    assert source.msgtype == RAW


def test_a_bag_without_images_is_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [("/odometry", START, header(START))])
    with pytest.raises(MediaError, match=r"bag' holds no message of sensor_msgs/msg/Image"):
        open_source(bag)


def test_bad_messages_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    messages = camera(count=5)
    odd = image_message(picture(), START, "odd_code")
    short = image_message(picture(), START)
    short.data = short.data[:-1]
    messages[1] = (messages[1][0], messages[1][1], odd)
    messages[3] = (messages[3][0], messages[3][1], short)
    source = open_source(write_bag(tmp_path / "bag", messages))
    assert [frame.name for frame in source] == ["000000", "000002", "000004"]
    assert [refusal.name for refusal in source.refused] == ["000001", "000003"]
    assert "odd_code" in source.refused[0].reason
    assert "9215" in source.refused[1].reason and "9216" in source.refused[1].reason


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_files_of_which_nothing_is_left_are_refused(tmp_path: Path, storage: StoragePlugin) -> None:
    bag = write_bag(tmp_path / "bag", camera(), storage)
    (file,) = bag.glob(f"*.{SUFFIXES[storage]}")
    data = file.read_bytes()
    for damaged in (b"no bag " * 100, data[:20], data[:60]):
        file.write_bytes(damaged)
        for path in (file, bag):
            with pytest.raises(MediaError) as caught:
                list(open_source(path))
            assert str(path) in str(caught.value)


def test_a_start_that_no_bag_has_is_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera())
    for seconds in (-5.0, float("inf"), float("nan")):
        with pytest.raises(MediaError, match=f"start is {seconds} s; expected 0 or more"):
            BagSource(bag, start_s=seconds)
        with pytest.raises(MediaError, match=f"duration is {seconds} s; expected 0 or more"):
            BagSource(bag, duration_s=seconds)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_duration_beyond_all_times_is_all_that_is_left(
    tmp_path: Path, storage: StoragePlugin
) -> None:
    bag = write_bag(tmp_path / "bag", camera(count=5), storage)
    for seconds in (1e12, 1e300):
        assert len(list(BagSource(bag, duration_s=seconds))) == 5
        with pytest.raises(MediaError, match="from second 1e"):
            BagSource(bag, start_s=seconds)


def test_a_camera_info_that_was_sent_once_is_played_from_the_middle(tmp_path: Path) -> None:
    once: Message = ("/camera/camera_info", START, camera_info(START, focal=1.0))
    bag = write_bag(tmp_path / "bag", [once, *camera(count=40)])
    for start_s, images in ((0.0, 40), (1.0, 20)):
        first, *rest = BagSource(bag, start_s=start_s).raw_messages()
        assert first.channel.topic == "/camera/camera_info"
        assert first.recorded_ns == START + round(start_s * SECOND)
        assert len(rest) == images and all(m.channel.topic != first.channel.topic for m in rest)


IMAGES, INFOS = Channel("/camera/image_raw", RAW), Channel("/camera/camera_info", CAMERA_INFO)
FORMS: dict[str, dict[str, Any]] = {
    "single": {},
    "chunks": {"chunk": 7},
    "no index": {"chunk": 7, "index": False, "compression": "lz4"},
}


def long_drive(folder: Path, form: str) -> Path:
    """A bag of 200 images at 20 Hz; a camera_info comes with every 10th image."""
    messages = camera(count=200)
    messages[80], messages[99] = messages[99], messages[80]  # their chunks overlap in time
    for i in range(190, -1, -10):
        time = START + 5_000_000 + i * SECOND // 20
        messages.insert(i, (INFOS.topic, time, camera_info(time, focal=float(i))))
    if form == "sqlite":
        return write_bag(folder / "bag", messages, StoragePlugin.SQLITE3)
    file = folder / ("drive.mcap.zstd" if form == "packed" else "drive.mcap")
    content = mcap(messages, **FORMS["chunks" if form == "packed" else form])
    file.write_bytes(zstd.compress(content) if form == "packed" else content)
    return file


@pytest.mark.parametrize("form", [*FORMS, "sqlite", "packed"])
def test_messages_are_counted_and_the_latest_one_is_found(tmp_path: Path, form: str) -> None:
    first = START + 5_000_000
    limits = [None, first, first + SECOND // 3, first + 5 * SECOND, first + 60 * SECOND]
    with open_bag(long_drive(tmp_path, form)) as bag:
        for start, stop in itertools.product(limits, limits):
            for channels in ([IMAGES], [INFOS], [IMAGES, INFOS], []):
                found = list(bag.messages(channels, start, stop))
                assert bag.count(channels, start, stop) == len(found), (start, stop, channels)
                if start is None and stop is not None:
                    assert bag.latest(channels, stop) == (found[-1] if found else None)


@pytest.mark.parametrize(("form", "most"), [("chunks", 12), ("sqlite", 40)])
def test_a_part_of_a_bag_is_found_without_reading_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, most: int
) -> None:
    path = long_drive(tmp_path, form)
    read: list[object] = []
    decompressed, read_rows = McapFile._decompressed, SqliteFile._read

    def noted(self: McapFile, record: Any) -> bytes:
        read.append(record)
        return decompressed(self, record)

    def noted_rows(self: SqliteFile, rows: Iterable[Any]) -> Iterator[tuple[int, int, bytes]]:
        for row in rows:
            read.append(row)
            yield from read_rows(self, [row])

    monkeypatch.setattr(McapFile, "_decompressed", noted)
    monkeypatch.setattr(SqliteFile, "_read", noted_rows)
    source = BagSource(path, start_s=7.6)
    assert len(source) == 48
    # The rate needs 30 images; a chunk has 7 messages.
    assert len(read) < most
    read.clear()
    info = next(source.raw_messages())
    time_ns = START + 5_000_000 + 150 * SECOND // 20
    assert (info.channel, header_stamp_ns(info.cdr)) == (INFOS, time_ns)
    assert len(read) < 4


def test_a_damaged_chunk_is_counted_by_its_index(tmp_path: Path) -> None:
    content = bytearray(mcap(camera(count=40), chunk=5))
    at = content.index(bytes(image_message(picture(seed=22), 0).data[:50]))
    content[at] ^= 0xFF
    (tmp_path / "drive.mcap").write_bytes(content)
    source = BagSource(tmp_path / "drive.mcap", start_s=0.6)
    read = len(list(source))
    assert (len(source), read, len(source.refused), source.missing) == (28, 23, 1, 4)


def test_a_folder_with_a_damaged_metadata_file_is_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera())
    for content in ("", "a: [", "rosbag2_bagfile_information: 1"):
        (bag / "metadata.yaml").write_text(content)
        with pytest.raises(MediaError, match="cannot be read as a rosbag2"):
            open_source(bag)


def test_images_that_were_recorded_in_bursts_have_their_mean_rate(tmp_path: Path) -> None:
    pairs = [START + i // 2 * SECOND // 10 + i % 2 * 1_000_000 for i in range(20)]
    bag = write_bag(tmp_path / "bag", [("/image", t, image_message(picture(), t)) for t in pairs])
    assert open_source(bag).frame_rate == pytest.approx(20)
