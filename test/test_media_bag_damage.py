# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Bags that are damaged or made to do harm: they are refused, or read up to the damage."""

from __future__ import annotations

import sqlite3
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from bag_files import mcap
from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import Source, open_source, zstandard
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.zstandard import zstd
from media_files import SECOND, Message, image_message, picture, write_bag

START = 1_700_000_000 * SECOND
TOPIC = "/camera/image_raw"
CHUNK, CHUNK_INDEX, MESSAGE = b"\x06", b"\x08", b"\x05"
PAGE = 4096  # bytes, of SQLite
LENGTHS = [200_000_000_000, 1 << 63, (1 << 64) - 1]


def camera(count: int = 6) -> list[Message]:
    return [(TOPIC, START + i, image_message(picture(seed=i), START + i)) for i in range(count)]


def seen(source: Source) -> list[int]:
    """Return the numbers of the frames, after a look at their pixels."""
    frames = list(source)
    numbers = [frame.stamp_ns - START for frame in frames]
    for number, frame in zip(numbers, frames, strict=True):
        np.testing.assert_array_equal(frame.image, picture(seed=number))
    return numbers


def places(data: bytes | bytearray, opcode: bytes) -> list[int]:
    """Return where the records of a kind begin, at the top level of an MCAP file."""
    at, found = 8, []
    while at + 9 <= len(data):
        if data[at : at + 1] == opcode:
            found.append(at)
        at += 9 + int(struct.unpack_from("<Q", data, at + 1)[0])
    return found


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("chunk", [0, 2])
def test_a_damaged_length_costs_what_comes_after_it(
    tmp_path: Path, chunk: int, length: int
) -> None:
    data = bytearray(mcap(camera(), chunk=chunk))
    place = places(data, CHUNK if chunk else MESSAGE)[-1]
    struct.pack_into("<Q", data, place + 1, length)
    file = tmp_path / "drive.mcap"
    file.write_bytes(data)
    source = open_source(file)
    assert seen(source) == (list(range(6)) if chunk else list(range(5)))
    assert source.refused


def test_a_damaged_length_of_a_chunk_costs_that_chunk_if_the_file_has_an_index(
    tmp_path: Path,
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    messages: list[Message] = [
        (TOPIC, START + i, image_message(image, START + i)) for i in range(9)
    ]
    (file,) = write_bag(tmp_path / "bag", messages).glob("*.mcap")
    whole = file.read_bytes()
    for opcode, place, refused in ((CHUNK, 1, 1), (CHUNK_INDEX, 0, 0)):
        data = bytearray(whole)
        struct.pack_into("<Q", data, places(whole, opcode)[place] + 1, 1 << 63)
        file.write_bytes(data)
        source = open_source(file)
        numbers = [frame.stamp_ns - START for frame in source]
        assert numbers[0] == 0 and numbers[-1] == 8
        assert 9 - len(numbers) == refused + source.missing
        assert len(source.refused) == refused


def with_size_of_first_chunk(data: bytes, size: int) -> bytes:
    out = bytearray(data)
    struct.pack_into("<Q", out, places(data, CHUNK)[0] + 9 + 16, size)
    return bytes(out)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("index", [False, True])
def test_a_chunk_is_unpacked_up_to_the_size_that_it_states(
    tmp_path: Path, compression: str, index: bool
) -> None:
    blank = np.zeros((2000, 2000, 3), np.uint8)
    bomb: list[Message] = [(TOPIC, START, image_message(blank, START))]
    data = mcap([*bomb, *camera(3)[1:]], chunk=1, compression=compression, index=index)
    file = tmp_path / "drive.mcap"
    for size, words in ((1000, "damaged|more than 1000 bytes"), (1 << 40, "at most 1073741824")):
        file.write_bytes(with_size_of_first_chunk(data, size))
        tracemalloc.start()
        try:
            source = open_source(file)
            numbers = seen(source)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert numbers == [1, 2]
        assert most < blank.nbytes
        assert any("the chunk at byte" in refusal.reason for refusal in source.refused)
        pattern = "|".join(refusal.reason for refusal in source.refused)
        assert any(word in pattern for word in words.split("|"))


@pytest.mark.parametrize("frames", [1, 3])
def test_zstandard_is_unpacked_up_to_a_limit(tmp_path: Path, frames: int) -> None:
    content = np.random.default_rng(0).bytes(300_000) + bytes(2_000_000)
    packed = b"".join(zstd.compress(content) for _ in range(frames))
    whole = content * frames
    assert zstandard.decompress(packed, len(whole)) == whole
    with pytest.raises(ValueError, match=f"holds more than {len(whole) - 1} bytes"):
        zstandard.decompress(packed, len(whole) - 1)
    (tmp_path / "in").write_bytes(packed)
    tracemalloc.start()
    try:
        zstandard.unpack(tmp_path / "in", tmp_path / "out")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out").read_bytes() == whole
    assert most < 4_000_000


METADATA = """rosbag2_bagfile_information:
  relative_file_paths: [{name}]
  topics_with_message_count:
    - topic_metadata: {{name: {topic}, type: sensor_msgs/msg/Image}}
      message_count: {count}
"""
ALIASES = "a0: &a0 [x, y]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


def test_metadata_that_stands_for_much_more_is_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera(1))
    usual = {"name": "bag.mcap", "topic": TOPIC, "count": 1}
    (bag / "metadata.yaml").write_text(METADATA.format(**usual))
    assert seen(open_source(bag)) == [0]
    for text in (
        ALIASES + METADATA.format(**{**usual, "name": "*a8"}),
        ALIASES + METADATA.format(**{**usual, "topic": "*a8"}),
        ALIASES + METADATA.format(**usual) + "z: *a8\n" * 2 + "? *a8\n: 1\n",
        METADATA.format(**{**usual, "count": ".inf"}),
        METADATA.format(**{**usual, "count": -1}),
        METADATA.format(**{**usual, "count": 1 << 63}),
        METADATA.format(**{**usual, "name": "[" * 350 + "]" * 350}),
    ):
        (bag / "metadata.yaml").write_text(text)
        with pytest.raises(MediaError, match=r"its metadata.yaml is damaged; `ros2 bag reindex"):
            open_source(bag)
    with (bag / "metadata.yaml").open("ab") as file:
        file.truncate(1 << 23)
    with pytest.raises(MediaError, match=r"metadata.yaml' is too large; at most 4194304 bytes"):
        open_source(bag)


def test_control_characters_of_a_bag_do_not_reach_the_terminal(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera(1))
    text = METADATA.format(name='"\\e[2Jbag.mcap"', topic=TOPIC, count=1)
    (bag / "metadata.yaml").write_text(text)
    odd = tmp_path / "odd.mcap"
    odd.write_bytes(mcap([(f"/{c}\x1b[2J", t, m) for c in "ab" for _, t, m in camera(1)]))
    for path, words in ((bag, "is missing"), (odd, r"'/a\\x1b\[2J', '/b\\x1b")):
        with pytest.raises(MediaError, match=words) as caught:
            open_source(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE messages SET timestamp = 'noon' WHERE id = 2", "messages.timestamp is 'noon'"),
        ("UPDATE messages SET timestamp = x'00' WHERE id = 2", r"messages.timestamp is b'\\x00'"),
        ("UPDATE messages SET timestamp = 1.5 WHERE id = 1", "messages.timestamp is 1.5"),
        (
            "CREATE TABLE t AS SELECT * FROM topics; DROP TABLE topics; "
            "ALTER TABLE t RENAME TO topics; UPDATE topics SET id = 'one'",
            "topics.id is 'one'",
        ),
        ("UPDATE topics SET name = x'00'", r"topics.name is b'\\x00'"),
        ("UPDATE topics SET type = x'00'", r"topics.type is b'\\x00'"),
    ],
)
def test_a_value_of_another_type_in_sqlite_is_named(
    tmp_path: Path, change: str, words: str
) -> None:
    bag = write_bag(tmp_path / "bag", camera(3), StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    with sqlite3.connect(file) as writer:
        writer.executescript(change)
    writer.close()
    with pytest.raises(MediaError, match=rf"bag\.db3' cannot be read .* {words}; expected a"):
        open_source(file)


def test_a_sqlite_file_with_a_damaged_page_is_read_or_refused(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera(10), StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    data = file.read_bytes()
    reasons = set()
    for page in range(0, len(data), PAGE):
        whole, half = data[page : page + PAGE], data[page : page + PAGE // 2]
        for rest in (bytes(PAGE) + data[page + PAGE :], whole, half):  # zeros, or cut
            file.write_bytes(data[:page] + rest)
            try:
                for source in (open_source(file), BagSource(file, start_s=1e-9)):
                    assert len(list(source)) <= 10
            except MediaError as error:
                reasons.add(str(error).partition(": ")[2])
    assert any(reason.startswith("database disk image is malformed") for reason in reasons)


@pytest.mark.parametrize("value", ["'text'", "1000000000000000"])
def test_a_message_of_another_type_in_sqlite_costs_only_itself(tmp_path: Path, value: str) -> None:
    bag = write_bag(tmp_path / "bag", camera(3), StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    with sqlite3.connect(file) as writer:
        writer.execute(f"UPDATE messages SET data = {value} WHERE id = 2")
    writer.close()
    source = open_source(file)
    assert seen(source) == [0, 2]
    assert f"its data is {value}; expected bytes" in source.refused[0].reason
