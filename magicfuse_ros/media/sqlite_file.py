# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads the messages of a rosbag2's SQLite file."""

from __future__ import annotations

import reprlib
import shlex
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import COMPRESSED_BAG_SUFFIX
from magicfuse_ros.media.mcap_file import Channel

_PLACES = "id, topic_id, timestamp"


class SqliteFile:
    """Opens the file and counts its messages; see `McapFile`, which has the same attributes."""

    def __init__(self, path: Path, name: str) -> None:
        """Open the file; `name` is the user's name for it.

        Data that a killed recorder left in a `-wal` file beside it is also read.

        Raises:
            MediaError: if it is not such a file, or is damaged.
        """
        self.damage: list[str] = []
        self._name = name
        path = path.resolve()  # SQLite looks for pending data beside the file, not beside a link
        pending = [p for s in ("-wal", "-journal") if _holds_data(p := Path(f"{path}{s}"))]
        # Without pending data nothing is written beside the file, not even for a moment.
        mode = "mode=ro" if pending else "immutable=1"
        try:
            self._connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True)
            self.channels: dict[int, Channel] = {}
            self.foreign: set[str] = set()
            for number, topic, msgtype, encoding in self._connection.execute(
                "SELECT id, name, type, serialization_format FROM topics"
            ):
                self._check("topics.id", number, int)
                self._check("topics.name", topic, str)
                self._check("topics.type", msgtype, str)
                if encoding == "cdr":
                    self.channels[number] = Channel(topic, msgtype)
                else:
                    self.foreign.add(f"{topic} ({msgtype} as {encoding})")
            counts = "SELECT topic_id, count(*) FROM messages GROUP BY topic_id"
            self.counts = Counter(dict(self._connection.execute(counts)))
            self.announced = self.counts
            # SQLite sorts texts and bytes after all numbers.
            limits = "SELECT min(timestamp), max(timestamp) FROM messages"
            self.start_ns, self.end_ns = self._connection.execute(limits).fetchone()
            for limit in (self.start_ns, self.end_ns):
                if limit is not None:  # there is no message
                    self._check("messages.timestamp", limit, int)
        except sqlite3.Error as error:
            advice = ""
            if pending:
                advice = (
                    f"; its recorder was killed and left '{pending[0]}': copy both to a folder "
                    "that can be written, and run there: "
                    f"sqlite3 {shlex.quote(path.name)} .tables"
                )
            raise self._unreadable(error, advice) from error

    def _unreadable(self, error: sqlite3.Error, advice: str = "") -> MediaError:
        if not advice and "malformed" in str(error):
            advice = f"; it is cut or damaged: {_repair(Path(self._name))}"
        return MediaError(f"'{self._name}' cannot be read as a rosbag2: {error}{advice}")

    def _check(self, column: str, value: object, kind: type[int] | type[str]) -> None:
        """Check the type of a value: SQLite stores any type in any column."""
        if not isinstance(value, kind):
            expected = "an integer" if kind is int else "a text"
            raise MediaError(
                f"'{self._name}' cannot be read as a rosbag2: its {column} is "
                f"{reprlib.repr(value)}; expected {expected}"
            )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def messages(
        self, channels: Collection[int], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, recording time and content in time order; `stop_ns` is exclusive."""
        rows = self._select(_PLACES, channels, start_ns, stop_ns, "ORDER BY timestamp, id")
        yield from self._read(list(rows))

    def count(self, channels: Collection[int], start_ns: int, stop_ns: int) -> int:
        """Count the messages of a span of time."""
        return int(next(self._select("count(*)", channels, start_ns, stop_ns))[0])

    def latest(self, channels: Collection[int], stop_ns: int) -> tuple[int, int, bytes] | None:
        """Return channel, recording time and content of the last message before a time."""
        order = "ORDER BY timestamp DESC, id DESC"
        return next(self._read(self._select(_PLACES, channels, 0, stop_ns, order)), None)

    def _select(
        self, what: str, channels: Collection[int], start_ns: int, stop_ns: int, order: str = ""
    ) -> Iterator[Any]:
        wanted = ",".join("?" * len(channels))
        select = (
            f"SELECT {what} FROM messages WHERE topic_id IN ({wanted}) "
            f"AND timestamp >= ? AND timestamp < ? {order}"
        )
        try:
            yield from self._connection.execute(select, (*channels, start_ns, stop_ns))
        except sqlite3.Error as error:  # the index of the times may be damaged, too
            raise self._unreadable(error) from error

    def _read(self, rows: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, bytes]]:
        """Read messages one by one, to get every intact message of a damaged file."""
        fetch = "SELECT data FROM messages WHERE id = ?"
        for number, channel, time_ns in rows:
            try:
                (content,) = self._connection.execute(fetch, (number,)).fetchone()
                if not isinstance(content, bytes | None):
                    raise TypeError(f"its data is {reprlib.repr(content)}; expected bytes")
            except (sqlite3.Error, TypeError) as error:
                if not self.damage:
                    where = f"message {number} of '{self._name}'"
                    self.damage.append(f"{where} and maybe others cannot be read: {error}")
            else:
                yield channel, int(time_ns), content or b""


def _repair(path: Path) -> str:
    """Return the commands that save what is left of a file; of a cut one, zstd -d leaves none."""
    plain, unpack = path, ""
    if path.suffix.lower() == COMPRESSED_BAG_SUFFIX:
        plain = path.with_suffix("")
        unpack = f"zstd -dc {shlex.quote(str(path))} > {shlex.quote(str(plain))}; "
    return f"{unpack}sqlite3 {shlex.quote(str(plain))} .recover | sqlite3 repaired.db3"


def _holds_data(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
