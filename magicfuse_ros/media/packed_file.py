# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A bag file that is compressed as a whole: unpacked only while it is read.

A long drive is split into many such files, and the folder for temporary files seldom has room for
all of them at once.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import NamedTuple

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import zstandard
from magicfuse_ros.media.mcap_file import Channel, McapFile
from magicfuse_ros.media.sqlite_file import SqliteFile

OpenFile = Callable[[Path], "McapFile | SqliteFile"]


class _Content(NamedTuple):
    channels: dict[int, Channel]
    foreign: set[str]
    counts: Counter[int]
    announced: Counter[int]
    start_ns: int | None
    end_ns: int | None
    damage: list[str]


# By path as given (which the sentences name), resolved path, size and time of the last change.
_known: dict[tuple[Path, Path, int, int], _Content] = {}


class PackedFile:
    """Has the attributes of the file inside; see `McapFile`."""

    def __init__(self, path: Path, open_file: OpenFile) -> None:
        """Unpack the file, note what it holds, and remove it again.

        Later, this process knows what the file holds, and opens it without unpacking it.

        Raises:
            MediaError: if it cannot be read or unpacked; also see `open_file`.
        """
        self._path, self._open_file = path, open_file
        self.damage: list[str] = []
        status = path.stat()
        key = path, path.resolve(), status.st_size, status.st_mtime_ns
        if key not in _known:
            with self._unpacked() as file:
                counts, limits = (file.counts, file.announced), (file.start_ns, file.end_ns)
                _known[key] = _Content(file.channels, file.foreign, *counts, *limits, file.damage)
        content = _known[key]
        self.channels, self.foreign = content.channels, content.foreign
        self.counts, self.announced = content.counts, content.announced
        self.start_ns, self.end_ns = content.start_ns, content.end_ns
        self.damage = list(content.damage)

    def messages(
        self, channels: Collection[int], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """See `McapFile.messages`; the file is unpacked until the last message is taken."""
        with self._unpacked() as file:
            for message in file.messages(channels, start_ns, stop_ns):
                self._tell(file)
                yield message

    def count(self, channels: Collection[int], start_ns: int, stop_ns: int) -> int:
        """See `McapFile.count`; a file that lies within the span of time is not unpacked."""
        if self.start_ns is None or self.end_ns is None:
            return 0
        if start_ns <= self.start_ns and self.end_ns < stop_ns:
            return sum(self.counts[channel] for channel in channels)
        with self._unpacked() as file:
            return file.count(channels, start_ns, stop_ns)

    def latest(self, channels: Collection[int], stop_ns: int) -> tuple[int, int, bytes] | None:
        """See `McapFile.latest`; a file without a message of the channels is not unpacked."""
        if not any(self.counts[channel] for channel in channels):
            return None
        with self._unpacked() as file:
            return file.latest(channels, stop_ns)

    @contextmanager
    def _unpacked(self) -> Iterator[McapFile | SqliteFile]:
        with TemporaryDirectory() as folder:
            path = Path(folder) / self._path.stem
            try:
                zstandard.unpack(self._path, path)
            except OSError as error:
                raise MediaError(_reason(self._path, error)) from error
            file = self._open_file(path)
            try:
                yield file
            finally:
                self._tell(file)
                file.close()

    def _tell(self, file: McapFile | SqliteFile) -> None:
        """Add what is wrong with the file inside, as far as it is known so far."""
        self.damage += [sentence for sentence in file.damage if sentence not in self.damage]

    def close(self) -> None:
        """Do nothing: between two readings, nothing is open."""


def _reason(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        reason = f"it must be unpacked, and '{gettempdir()}' is full; set TMPDIR to another folder"
    return f"'{path}' cannot be read as a rosbag2: {reason}"
