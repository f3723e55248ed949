# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Bags as recorders leave them: MCAP record by record, SQLite with a -wal."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import lz4.frame

from magicfuse_ros.media.zstandard import zstd
from media_files import TYPES, Message

MAGIC = b"\x89MCAP0\r\n"
COMPRESSORS = {"": bytes, "zstd": zstd.compress, "lz4": lz4.frame.compress}


class Definition(NamedTuple):
    """An extra channel without any messages."""

    topic: str
    msgtype: str
    encoding: str
    text: bytes


def mcap(
    messages: Iterable[Message],
    *,
    chunk: int = 0,
    compression: str = "",
    index: bool = True,
    others: Sequence[Definition] = (),
    footer: bool = True,
) -> bytes:
    """Return an MCAP file with the messages in the given order.

    Args:
        messages: topic, recording time and message.
        chunk: messages per chunk; 0: no chunks, as with the profile fastwrite.
        compression: compression of the chunks: zstd, lz4 or none.
        index: whether each chunk is followed by an index of its messages.
        others: extra channels.
        footer: whether the recorder closed the file.
    """
    messages = list(messages)
    kinds = {topic: message.__msgtype__ for topic, _, message in messages}
    channels = [Definition(topic, kind, "ros2msg", b"") for topic, kind in kinds.items()]
    head = b"".join(_channel(n, c) for n, c in enumerate([*others, *channels], 1))
    numbers = {topic: n for n, topic in enumerate(kinds, 1 + len(others))}
    out = MAGIC + _record(1, _text("ros2") + _text("test"))
    records = [
        (number := numbers[topic], time, _record(5, struct.pack("<HIQQ", number, 0, time, time)
         + bytes(TYPES.serialize_cdr(message, kinds[topic]))))
        for topic, time, message in messages
    ]  # fmt: skip
    if not chunk:
        out += head + b"".join(record for _, _, record in records)
    for start in range(0, len(records), chunk) if chunk else ():
        part = records[start : start + chunk]
        content = head + b"".join(record for _, _, record in part)
        packed = COMPRESSORS[compression](content)
        times = [time for _, time, _ in part]
        out += _record(
            6,
            struct.pack("<QQQI", min(times), max(times), len(content), crc32(content))
            + _text(compression)
            + struct.pack("<Q", len(packed))
            + packed,
        )
        for number in sorted({number for number, _, _ in part}) if index else ():
            entries = b"".join(struct.pack("<QQ", t, 0) for n, t, _ in part if n == number)
            out += _record(7, struct.pack("<HI", number, len(entries)) + entries)
    end = _record(15, struct.pack("<I", 0)) + _record(2, struct.pack("<QQI", 0, 0, 0)) + MAGIC
    return out + end if footer else out


def _channel(number: int, channel: Definition) -> bytes:
    name, encoding = _text(channel.msgtype), _text(channel.encoding)
    schema = name + encoding + struct.pack("<I", len(channel.text)) + channel.text
    coding = "json" if channel.encoding == "jsonschema" else "cdr"
    return _record(3, struct.pack("<H", number) + schema) + _record(
        4, struct.pack("<HH", number, number) + _text(channel.topic) + _text(coding) + _text("")
    )


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def in_wal(file: Path, rows: int) -> None:
    """Move the last `rows` messages of a .db3 into a -wal beside it, as a killed recorder does."""
    wal = Path(f"{file}-wal")
    writer = sqlite3.connect(file)
    last = "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id DESC LIMIT ?"
    moved = writer.execute(last, (rows,)).fetchall()
    writer.executemany("DELETE FROM messages WHERE id = ?", [row[:1] for row in moved])
    writer.commit()
    writer.execute("PRAGMA journal_mode = wal")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", moved)
    writer.commit()
    left = file.read_bytes(), wal.read_bytes()
    writer.close()  # SQLite cleans up here; a kill would not
    file.write_bytes(left[0])
    wal.write_bytes(left[1])
