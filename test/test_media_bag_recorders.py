# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Complete and damaged bags: the intact part is read, and the rest is reported."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import tempfile
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from bag_files import Definition, in_wal, mcap
from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import Source, open_source, zstandard
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.several import SeveralSources
from magicfuse_ros.media.source import mostly_missing
from magicfuse_ros.media.zstandard import MAGIC as ZSTD
from magicfuse_ros.media.zstandard import zstd
from media_files import SECOND, TYPES, Message, header, image_message, picture, write_bag

START = 1_700_000_000 * SECOND
PERIOD = SECOND // 10
TOPIC = "/camera/image_raw"
FORMS = [
    {},
    {"chunk": 3},
    {"chunk": 3, "compression": "zstd"},
    {"chunk": 3, "compression": "lz4", "index": False},
]


def camera(count: int = 10) -> list[Message]:
    stamps = [START + i * PERIOD for i in range(count)]
    return [(TOPIC, t, image_message(picture(seed=i), t)) for i, t in enumerate(stamps)]


def check(source: Source, expected: list[int]) -> None:
    """Read the source twice: both times it yields these frames with their pixels and stamps."""
    for _ in range(2):
        frames = list(source)
        assert [(frame.stamp_ns - START) // PERIOD for frame in frames] == expected
        for number, frame in zip(expected, frames, strict=True):
            np.testing.assert_array_equal(frame.image, picture(seed=number))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_mcap_and_any_order(tmp_path: Path, form: dict[str, object]) -> None:
    messages = camera()
    messages[4], messages[5] = messages[5], messages[4]  # within and between chunks
    messages[0], messages[9] = messages[9], messages[0]
    messages.insert(3, ("/odometry", START, header(START)))
    file = tmp_path / "drive.mcap"
    file.write_bytes(mcap(messages, **form))  # type: ignore[arg-type]
    source = open_source(file)
    check(source, list(range(10)))
    assert (source.refused, source.missing, len(source)) == ([], 0, 10)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_mcap_whose_recorder_was_killed(tmp_path: Path, form: dict[str, object]) -> None:
    file = tmp_path / "drive.mcap"
    whole = mcap(camera(), footer=False, **form)  # type: ignore[arg-type]
    file.write_bytes(whole)
    source = open_source(file)
    check(source, list(range(10)))
    assert (source.refused, source.missing, len(source)) == ([], 0, 10)
    (sentence,) = source.damage
    assert "drive.mcap' was not finished" in sentence

    file.write_bytes(whole[: len(whole) * 3 // 4])
    source = open_source(file)
    check(source, list(range(len(list(source)))))
    assert 6 <= len(list(source)) <= 8
    (refusal,) = source.refused
    assert "drive.mcap' " in refusal.reason and " byte " in refusal.reason
    assert len(list(source)) + 1 + source.missing == len(source) and not source.damage


def test_a_file_without_its_last_images_tells_of_them_though_it_ends_with_a_record(
    tmp_path: Path,
) -> None:
    bag = write_bag(tmp_path / "bag", camera())
    (bag / "bag.mcap").write_bytes(mcap(camera(7), footer=False))
    source = open_source(bag)  # metadata.yaml lists ten
    check(source, list(range(7)))
    (refusal,) = source.refused
    assert "was not finished" in refusal.reason
    assert (refusal.name, source.missing, source.damage) == ("000007", 2, [])


def test_damage_outside_the_part_that_is_read_costs_no_image(tmp_path: Path) -> None:
    file = tmp_path / "drive.mcap"
    whole = mcap(camera())
    file.write_bytes(whole[: len(whole) * 3 // 4])
    source = BagSource(file, duration_s=0.25)
    check(source, [0, 1, 2])
    assert (source.refused, source.missing, len(source.damage)) == ([], 0, 1)


def test_several_sources_tell_their_damage(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.mcap").write_bytes(mcap(camera(2), footer=False))
    several = SeveralSources([open_source(tmp_path / f"{name}.mcap") for name in ("a", "b")])
    for _ in range(2):
        assert len(list(several)) == 4 and not several.refused
        assert [("a.mcap'" in s, "b.mcap'" in s) for s in several.damage] == [(1, 0), (0, 1)]


@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
def test_a_chunk_that_is_cut_gives_its_whole_messages(tmp_path: Path, compression: str) -> None:
    file = tmp_path / "drive.mcap"
    noise = [np.random.default_rng(i).integers(0, 256, (160, 200, 3), np.uint8) for i in range(4)]
    messages = [(TOPIC, START + i, image_message(image, 1)) for i, image in enumerate(noise)]
    whole = mcap(messages, chunk=4, compression=compression)
    file.write_bytes(whole[: len(whole) * 7 // 8])
    frames = list(open_source(file))
    assert len(frames) == 3
    for image, frame in zip(noise, frames, strict=False):
        np.testing.assert_array_equal(frame.image, image)


@pytest.mark.parametrize("before", [0, 53], ids=["content", "length"])
def test_damage_inside_costs_one_chunk(tmp_path: Path, before: int) -> None:
    bag = _compressed(tmp_path / "bag", CompressionMode.STORAGE, StoragePlugin.MCAP, camera(300))
    (file,) = bag.glob("*.mcap")
    data = bytearray(file.read_bytes())
    begin = data.index(ZSTD, data.index(ZSTD) + 1) - before  # of the second chunk
    data[begin : begin + 4] = b"\xff" * 4
    file.write_bytes(data)
    for path in (bag, file):
        source = open_source(path)
        stamps = [(frame.stamp_ns - START) // PERIOD for frame in source]
        (refusal,) = source.refused
        assert "bag.mcap' is damaged" in refusal.reason
        assert stamps[0] == 0 and stamps[-1] == 299 and len(stamps) + 1 + source.missing == 300


def test_most_of_a_bag_is_lost(tmp_path: Path) -> None:
    whole = mcap(camera(20))
    bag = write_bag(tmp_path / "bag", camera(20))
    bag.joinpath("bag.mcap").write_bytes(whole[: len(whole) // 5])
    source = open_source(bag)
    read = list(source)
    assert (len(source), len(read) + 1 + source.missing) == (20, 20)
    assert mostly_missing(source, source.missing)
    file = tmp_path / "file.mcap"  # no header tells a count, but 4 of 5 parts are unreadable
    file.write_bytes(whole[: len(whole) // 5] + b"\xff" * (len(whole) * 4 // 5))
    source = open_source(file)
    assert len(list(source)) <= 4
    assert mostly_missing(source, source.missing)


def test_definitions_of_other_topics_do_no_harm(tmp_path: Path) -> None:
    service = b"int64 a\n---\nint64 sum\n"
    others = [
        Definition("/add/_service_event", "my/srv/Add_Event", "ros2msg", service),
        Definition("/broken", "my/msg/Thing", "ros2msg", b"int32 5wrong\n"),
        Definition("/empty", "my/msg/Empty", "ros2msg", b""),
        Definition("/log", "foxglove.Log", "jsonschema", b'{"type": "object"}'),
        Definition("/proto", "foxglove.Grid", "protobuf", b"\xff\xfe\x00\x80"),
    ]
    file = tmp_path / "drive.mcap"
    file.write_bytes(mcap(camera(3), others=others))
    check(open_source(file), [0, 1, 2])


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_folder_without_metadata(tmp_path: Path, storage: StoragePlugin) -> None:
    bag = tmp_path / "bag"
    first = write_bag(tmp_path / "1", camera()[:4], storage)
    second = write_bag(tmp_path / "2", camera()[4:], storage)
    bag.mkdir()
    for number, part in enumerate((second, first)):  # their times tell the order
        (file,) = (f for f in part.iterdir() if f.suffix != ".yaml")
        file.rename(bag / f"bag_{number}{file.suffix}")
    check(open_source(bag), list(range(10)))


@pytest.mark.parametrize("blank", [b"", bytes(5000)])
@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_file_that_a_power_loss_left_blank_costs_only_itself(
    tmp_path: Path, storage: StoragePlugin, blank: bytes
) -> None:
    bag = write_bag(tmp_path / "bag", camera(), storage)
    (bag / "metadata.yaml").unlink()
    (file,) = bag.iterdir()
    last = file.with_stem("bag_1")
    last.write_bytes(blank)
    source = open_source(bag)
    check(source, list(range(10)))
    assert source.damage == [f"the bag is damaged: '{last}' holds no data"]
    file.write_bytes(blank)
    with pytest.raises(MediaError, match=r"holds no data; expected messages of a rosbag2"):
        open_source(bag)


def test_a_bag_of_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    for number, message in enumerate(camera(30)):
        (bag / f"bag_{number}.mcap").write_bytes(mcap([message]))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
    try:
        check(open_source(bag), list(range(30)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_metadata_of_reindex_and_a_missing_file(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera(3))
    metadata = bag / "metadata.yaml"
    text = metadata.read_text()
    metadata.write_text(text.replace("storage_identifier: mcap", 'storage_identifier: ""'))
    check(open_source(bag), [0, 1, 2])
    (bag / "bag.mcap").unlink()
    with pytest.raises(MediaError, match=r"'bag.mcap', which is missing; `ros2 bag reindex"):
        open_source(bag)


def _compressed(
    path: Path, mode: CompressionMode, storage: StoragePlugin, messages: list[Message]
) -> Path:
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        kind = "sensor_msgs/msg/Image"
        connection = writer.add_connection(TOPIC, kind, typestore=TYPES)
        for _, time, message in messages:
            writer.write(connection, time, TYPES.serialize_cdr(message, kind))
    return path


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_compressed_bags_and_their_files(
    tmp_path: Path, mode: CompressionMode, storage: StoragePlugin
) -> None:
    bag = _compressed(tmp_path / "bag", mode, storage, camera(4))
    (file,) = (f for f in bag.iterdir() if f.suffix != ".yaml")
    for path in (bag, file):
        check(open_source(path), [0, 1, 2, 3])
    (bag / "metadata.yaml").unlink()
    check(open_source(bag), [0, 1, 2, 3])
    if mode == CompressionMode.FILE:
        file.with_suffix("").write_bytes(zstd.decompress(file.read_bytes()))  # as a player does
        check(open_source(bag), [0, 1, 2, 3])


def test_a_message_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = camera(3)
    messages[1] = (TOPIC, START + PERIOD, image_message(np.zeros((90, 90, 3), np.uint8), START))
    bag = _compressed(tmp_path / "bag", CompressionMode.MESSAGE, StoragePlugin.MCAP, messages)
    monkeypatch.setattr("magicfuse_ros.media.zstandard.MAX_BYTES", 20_000)
    source = open_source(bag)
    check(source, [0, 2])
    assert "holds more than 20000 bytes" in source.refused[0].reason


def test_a_full_folder_for_unpacked_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("magicfuse_ros.media.zstandard.unpack", full)
    bag = _compressed(tmp_path / "bag", CompressionMode.FILE, StoragePlugin.MCAP, camera(4))
    with pytest.raises(MediaError, match=f"'{tempfile.gettempdir()}' is full; set TMPDIR"):
        open_source(bag)


def test_of_many_compressed_files_only_the_one_in_use_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bag := tmp_path / "bag").mkdir()
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for number in (1, 2, 0):  # their names do not tell their order
        part = camera(9)[3 * number : 3 * number + 3]
        made = _compressed(tmp_path / f"{number}", CompressionMode.FILE, StoragePlugin.MCAP, part)
        (file,) = made.glob("*.zstd")
        file.rename(bag / f"drive_{(number + 1) % 3}.mcap.zstd")
    source = open_source(bag)
    assert not list(scratch.iterdir())
    unpacked = []
    for _ in source:
        unpacked.append(len(list(scratch.iterdir())))
    assert unpacked == [1] * 9
    check(source, list(range(9)))
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_each_reading_unpacks_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    unpack, unpacked = zstandard.unpack, []

    def noted(path: Path, out: Path) -> None:
        unpacked.append(path)
        unpack(path, out)

    monkeypatch.setattr(zstandard, "unpack", noted)
    file = tmp_path / "drive.mcap.zstd"
    images = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(9)]
    messages = [(TOPIC, START + i, image_message(image, 1)) for i, image in enumerate(images)]
    packed = zstd.compress(mcap(messages))
    file.write_bytes(packed[: round(share * len(packed))])
    source = open_source(file)
    told = []
    for _ in range(2):
        unpacked.clear()
        told.append((len(list(source)), *source.refused))
        assert unpacked == [file]
    assert told[0] == told[1] and len(told[0]) == (1 if share == 1 else 2)
    file.write_bytes(zstd.compress(mcap(messages[:4])))
    assert len(list(open_source(file))) == 4


def test_only_the_packed_files_of_the_part_that_is_read_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        part = mcap(camera(20)[4 * number : 4 * number + 4])
        (tmp_path / f"drive_{number}.mcap.zstd").write_bytes(zstd.compress(part))
    BagSource(tmp_path)
    unpack, unpacked = zstandard.unpack, []

    def noted(path: Path, out: Path) -> None:
        unpacked.append(path.name)
        unpack(path, out)

    monkeypatch.setattr(zstandard, "unpack", noted)
    source = BagSource(tmp_path, start_s=1.0, duration_s=0.6)
    assert len(source) == 6
    # the second file is counted without; the rate is known before the third
    assert sorted(unpacked) == [*["drive_2.mcap.zstd"] * 2, *["drive_3.mcap.zstd"] * 1]
    unpacked.clear()
    assert len(list(source.raw_messages())) == 6
    assert unpacked == ["drive_2.mcap.zstd", "drive_3.mcap.zstd"]


def test_a_sqlite_file_whose_recorder_was_killed(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag 100%", camera(), StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    in_wal(file, 4)
    link = tmp_path / "link.db3"
    link.symlink_to(file)
    for path in (bag, file, link):
        check(open_source(path), list(range(10)))
    Path(f"{file}-wal").unlink()
    source = open_source(bag)  # six are left, but metadata.yaml lists ten
    assert (len(list(source)), source.missing) == (6, 3)
    (refusal,) = source.refused
    assert "announces 10 images and holds 6" in refusal.reason


def test_a_sqlite_file_that_is_cut_or_damaged(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera(), StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=r"bag\.db3' .* \.recover"):
        open_source(bag)
    packed = tmp_path / "a drive.db3.zstd"
    packed.write_bytes(zstd.compress(data[: len(data) // 2]))
    plain = shlex.quote(str(packed.with_suffix("")))
    with pytest.raises(MediaError) as caught:
        open_source(packed)
    unpack = f"zstd -dc {shlex.quote(str(packed))} > {plain}"
    assert str(caught.value).endswith(f"{unpack}; sqlite3 {plain} .recover | sqlite3 repaired.db3")


def test_the_advice_for_a_damaged_metadata_file_of_packed_files_unpacks_them(
    tmp_path: Path,
) -> None:
    bag = _compressed(tmp_path / "a bag", CompressionMode.FILE, StoragePlugin.MCAP, camera(1))
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: 1")
    folder = shlex.quote(str(bag))
    with pytest.raises(MediaError) as caught:
        open_source(bag)
    assert f"; `zstd -d {folder}/*.zstd` unpacks its files" in str(caught.value)
    assert f"`ros2 bag reindex {folder}` rebuilds it" in str(caught.value)


def test_bags_without_an_image_say_what_they_hold(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "other", [("/odometry", START, header(START))])
    with pytest.raises(MediaError, match=r"it holds /odometry \(std_msgs/msg/Header\)"):
        open_source(bag)
    with pytest.raises(MediaError, match="it is empty"):
        open_source(write_bag(tmp_path / "empty", []))
    old = tmp_path / "old.mcap"
    old.write_bytes(mcap([], others=[Definition("/front", "sensor_msgs/Image", "jsonschema", b"")]))
    with pytest.raises(MediaError, match=r"it holds /front \(sensor_msgs/Image as json\); ROS 2"):
        open_source(old)
    silent = Writer(tmp_path / "silent", version=9, storage_plugin=StoragePlugin.MCAP)
    with silent:
        silent.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=TYPES)
    with pytest.raises(MediaError, match=f"nothing was recorded on {TOPIC}"):
        open_source(tmp_path / "silent")


def test_a_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    for content, word in [
        (pointer, "git lfs pull"),
        (b"\n<!DOCTYPE html><title>404", "web page"),
        (b"#ROSBAG V2.0\n", "rosbags-convert"),
        (b"PK\x03\x04....", "archive; unpack it"),
    ]:
        for name in ("drive.mcap", "drive.db3", "drive.mp4", "picture.png"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(MediaError, match=word) as caught:
                open_source(tmp_path / name)
            assert name in str(caught.value)
    ros1 = tmp_path / "drive.bag"
    ros1.write_bytes(b"#ROSBAG V2.0\n")
    for opened in (open_source, BagSource):
        with pytest.raises(MediaError, match=r"drive\.bag' is a bag of ROS 1; `rosbags-convert`"):
            opened(ros1)


def test_messages_of_the_camera_are_raw_cdr(tmp_path: Path) -> None:
    """The played messages equal the recorded ones, also from a compressed bag."""
    messages = camera(3)
    bag = _compressed(tmp_path / "b", CompressionMode.MESSAGE, StoragePlugin.SQLITE3, messages)
    played = list(BagSource(bag).raw_messages())
    kind = "sensor_msgs/msg/Image"
    assert [m.cdr for m in played] == [bytes(TYPES.serialize_cdr(m, kind)) for _, _, m in messages]
