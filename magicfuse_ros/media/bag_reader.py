# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Opens a rosbag2 and reads what its messages reveal without decoding.

It reads only the requested topics. Their types are known here, so it ignores the message
definitions in the bag: a definition that is broken, empty or in another language does no harm.
"""

from __future__ import annotations

import resource
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from heapq import merge
from pathlib import Path
from typing import Any, NamedTuple

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.media import COMPRESSED_BAG_SUFFIX, is_bag, zstandard
from magicfuse_ros.media.bag_files import files_of
from magicfuse_ros.media.bag_writer import message_types
from magicfuse_ros.media.foreign import refuse_foreign
from magicfuse_ros.media.mcap_file import Channel, McapFile
from magicfuse_ros.media.packed_file import PackedFile
from magicfuse_ros.media.sqlite_file import SqliteFile

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_HEADER_STAMP = {0: ">iI", 1: "<iI"}  # by the lowest bit of the encapsulation kind
_EVER = 1 << 62
_HEAD = 4096  # bytes
_OTHER_FILES = 500  # that a process may have open beside a bag's
BagFile = McapFile | SqliteFile | PackedFile


class RawMessage(NamedTuple):
    """A message as it was recorded; a publisher can send its `cdr`."""

    channel: Channel
    recorded_ns: int
    cdr: bytes


class Bag:
    """An open rosbag2; see `open_bag`.

    Attributes:
        counts: number of messages found in each channel.
        announced: number of messages that the bag claims to hold; equal to `counts` if none is
            missing.
        start_ns, end_ns: first and last recording time; None if there is no message.
        damage: what is wrong with the files, in sentences; grows while messages are read.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        """Open the files; `stack` closes them."""
        files, announced = files_of(path)
        _allow_open_files(len(files))
        opened = {file: _open_file(file, stack) for file in files}
        self._files = [file for file in opened.values() if file is not None]
        self._blank = [f"'{path}' holds no data" for path, file in opened.items() if file is None]
        if not self._files:
            raise MediaError(f"{self._blank[0]}; expected messages of a rosbag2")
        self.counts: Counter[Channel] = Counter()
        told: Counter[Channel] = Counter()
        for file in self._files:
            for number, channel in file.channels.items():
                self.counts[channel] += file.counts[number]
                told[channel] += file.announced[number]
        self.announced = self.counts | (told if announced is None else announced)
        self.start_ns = min(
            (f.start_ns for f in self._files if f.start_ns is not None), default=None
        )
        self.end_ns = max((f.end_ns for f in self._files if f.end_ns is not None), default=None)

    @property
    def damage(self) -> list[str]:
        """Return what is wrong with the files."""
        return [*self._blank, *(sentence for file in self._files for sentence in file.damage)]

    @property
    def foreign(self) -> set[str]:
        """Return the channels that cannot be read, because ROS 2 did not serialize them."""
        return {channel for file in self._files for channel in file.foreign}

    def messages(
        self, channels: Collection[Channel], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        """Yield the messages of some channels in the order of their recording times.

        Args:
            channels: the channels to read.
            start_ns: first recording time; None: from the start.
            stop_ns: end of the recording times, exclusive; None: to the end.
        """
        begin, end = _limits(start_ns, stop_ns)
        with _disk():
            for group in _in_time_order(self._files, begin, end):
                readers = (_messages(file, channels, begin, end) for file in group)
                yield from merge(*readers, key=lambda message: message.recorded_ns)

    def count(
        self, channels: Collection[Channel], start_ns: int | None = None, stop_ns: int | None = None
    ) -> int:
        """Count the messages that `messages` looks for, without reading their content if possible.

        Raises:
            MediaError: if a file cannot be read.
        """
        begin, end = _limits(start_ns, stop_ns)
        with _disk():
            return sum(
                file.count(_wanted(file, channels), begin, end)
                for group in _in_time_order(self._files, begin, end)
                for file in group
            )

    def latest(self, channels: Collection[Channel], stop_ns: int) -> RawMessage | None:
        """Return the last message of some channels before a time; read backwards from there.

        Raises:
            MediaError: if a file cannot be read.
        """
        begin, end = _limits(None, stop_ns)
        with _disk():
            for group in reversed(list(_in_time_order(self._files, begin, end))):
                found = []
                for file in group:
                    wanted = _wanted(file, channels)
                    if (message := file.latest(wanted, end)) is not None:
                        number, time_ns, content = message
                        found.append(RawMessage(wanted[number], time_ns, _unpacked(content)))
                if found:
                    return max(found, key=lambda message: message.recorded_ns)
        return None

    def deserialize(self, message: RawMessage) -> Any:
        """Decode a message of a known type, see `message_types`.

        Raises:
            FrameError: if it is damaged or too large.
        """
        if message.cdr.startswith(zstandard.MAGIC):  # see `_unpacked`
            raise FrameError(
                "the message is damaged: its Zstandard data cannot be unpacked, or holds more than "
                f"{zstandard.MAX_BYTES} bytes"
            )
        try:
            return message_types().deserialize_cdr(message.cdr, message.channel.msgtype)
        except Exception as error:  # a short message fails in struct, numpy or rosbags itself
            raise FrameError(f"the message is damaged: {error}") from error


def _allow_open_files(count: int) -> None:
    """Raise this process's own limit of open files, if a bag is split into very many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + _OTHER_FILES:
        wanted = count + _OTHER_FILES
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag for the block.

    Raises:
        MediaError: if it does not exist, is not a bag, or cannot be read.
    """
    try:
        if not path.exists():
            raise MediaError(f"'{path}' does not exist")
        if path.is_file():
            refuse_foreign(path)
        if not is_bag(path):
            raise MediaError(
                f"'{path}' is not a rosbag2; expected a folder with metadata.yaml, an .mcap or "
                "a .db3 file"
            )
    except OSError as error:
        raise MediaError(f"'{path}' cannot be read: {error.strerror}") from error
    with ExitStack() as stack:
        yield Bag(path, stack)


def _open_file(path: Path, stack: ExitStack) -> BagFile | None:
    """Open a file until `stack` closes it; None: it holds no data.

    Raises:
        MediaError: if it cannot be read, or is something else.
    """
    name = str(path)

    def open_plain(plain: Path) -> McapFile | SqliteFile:
        kind = McapFile if plain.suffix.lower() == ".mcap" else SqliteFile
        return kind(plain, name)

    try:
        refuse_foreign(path)
        if _is_blank(path):
            return None
        packed = path.suffix.lower() == COMPRESSED_BAG_SUFFIX
        file = PackedFile(path, open_plain) if packed else open_plain(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MediaError(f"'{name}' cannot be read as a rosbag2: {reason}") from error
    stack.callback(file.close)
    return file


def _is_blank(path: Path) -> bool:
    """Return whether a file begins with nothing: a power loss leaves it empty, or fills it with 0.

    The data of an empty .db3 may all be in its -wal.
    """
    with path.open("rb") as file:
        return not file.read(_HEAD).strip(b"\0") and not Path(f"{path}-wal").exists()


@contextmanager
def _disk() -> Iterator[None]:
    """Report that the disk or the network share has gone."""
    try:
        yield
    except OSError as error:
        raise MediaError(f"the bag cannot be read to its end: {error}") from error


def _limits(start_ns: int | None, stop_ns: int | None) -> tuple[int, int]:
    return min(start_ns or 0, _EVER), _EVER if stop_ns is None else min(stop_ns, _EVER)


def _in_time_order(
    files: Iterable[BagFile], start_ns: int, stop_ns: int
) -> Iterator[list[BagFile]]:
    """Yield groups of the files with messages in a span of time; files of a group overlap."""
    group: list[BagFile] = []
    group_end = 0
    spans = [(f.start_ns, f.end_ns, f) for f in files]
    filled = [(start, end, f) for start, end, f in spans if start is not None and end is not None]
    within = [span for span in filled if span[0] < stop_ns and span[1] >= start_ns]
    for start, end, file in sorted(within, key=lambda span: span[0]):
        if group and start > group_end:
            yield group
            group = []
        group.append(file)
        group_end = max(group_end, end)
    if group:
        yield group


def _messages(
    file: BagFile, channels: Collection[Channel], start_ns: int, stop_ns: int
) -> Iterator[RawMessage]:
    wanted = _wanted(file, channels)
    for number, time_ns, content in file.messages(wanted, start_ns, stop_ns):
        yield RawMessage(wanted[number], time_ns, _unpacked(content))


def _wanted(file: BagFile, channels: Collection[Channel]) -> dict[int, Channel]:
    return {number: found for number, found in file.channels.items() if found in channels}


def _unpacked(content: bytes) -> bytes:
    """Return the CDR of a message; the recorder may have compressed it. CDR begins with 0."""
    if not content.startswith(zstandard.MAGIC):
        return content
    try:
        return zstandard.decompress(content, zstandard.MAX_BYTES)
    except ValueError:
        return content  # `Bag.deserialize` will reject it


def image_channels(bag: Bag) -> list[Channel]:
    """Return the channels with raw or compressed images, sorted by name."""
    return sorted(channel for channel in bag.counts if channel.msgtype in (RAW, COMPRESSED))


def image_topics(bag: Bag) -> dict[str, int]:
    """Return the image topics that hold messages, with their message counts, sorted by name."""
    counts: Counter[str] = Counter()
    for channel in image_channels(bag):
        counts[channel.topic] += bag.counts[channel]
    return {topic: count for topic, count in counts.items() if count}


def header_stamp_ns(cdr: bytes) -> int:
    """Return the stamp of a serialized message that begins with a header.

    Raises:
        FrameError: if the message is too short.
    """
    if len(cdr) < 12:
        raise FrameError(f"the message is damaged: its {len(cdr)} bytes hold no header")
    seconds, nanoseconds = struct.unpack_from(_HEADER_STAMP[cdr[1] & 1], cdr, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
