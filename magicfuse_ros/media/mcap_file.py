# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads the messages of an MCAP file, even if it is unfinished, cut, damaged or without an index.

It reads the file record by record, needs neither a footer nor an index, and parses no message
definitions. A killed recorder writes neither footer nor index; the profile `fastwrite` of
`ros2 bag record` never writes an index and does not sort the messages.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

import lz4.frame

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media.zstandard import MAX_BYTES
from magicfuse_ros.media.zstandard import decompress as decompress_zstd

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x02, 0x03, 0x04, 0x05, 0x06
_MESSAGE_INDEX, _CHUNK_INDEX, _STATISTICS, _DATA_END = 0x07, 0x08, 0x0B, 0x0F
_RECORD = struct.Struct("<BQ")  # opcode, length of the content
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK_HEAD = struct.Struct("<QQQII")  # first and last time, size, CRC, length of the next text
_FOOTER_SIZE = 29  # including its opcode and length
MAX_MESSAGES = 1 << 40  # of a topic; a recorder at 1 kHz would need 35 years


class Channel(NamedTuple):
    """A topic and the type of its messages."""

    topic: str
    msgtype: str


class _Record(NamedTuple):
    opcode: int
    begin: int  # of the content
    end: int  # beyond the end of the file if the file is cut


class _Chunk(NamedTuple):
    first_ns: int
    last_ns: int
    record: _Record
    counts: Counter[int]


class McapFile:
    """Opens the file and finds its messages.

    Attributes:
        channels: channels with messages in CDR, by number.
        foreign: the other channels, in words.
        counts: number of messages found, by channel number.
        announced: number of messages that the file claims to hold, by channel number; an estimate
            if an unfinished file is cut or damaged.
        start_ns, end_ns: first and last recording time; None if there is no message.
        damage: what is wrong with the file, in sentences; grows while messages are read.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Scan the file; `name` is the user's name for it.

        Raises:
            MediaError: if it is not an MCAP file.
        """
        self.channels: dict[int, Channel] = {}
        self.damage: list[str] = []
        self.foreign: set[str] = set()
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self._name = name
        self._schemas: dict[int, str] = {}
        self._chunks: list[_Chunk] = []
        self._single: dict[int, array[int]] = {}  # time, begin, end of messages outside chunks
        self._known: set[int] = set()  # all channels, also those that are not in CDR
        self._indexed: list[int] = []  # positions of the chunks according to the summary
        self._stated: Counter[int] | None = None
        self._stream = path.open("rb")
        self._size = os.fstat(self._stream.fileno()).st_size
        if self._stream.read(len(MAGIC)) != MAGIC:
            self._stream.close()
            raise MediaError(f"'{name}' cannot be read as a rosbag2: it is not an MCAP file")
        self._read_summary()
        self._scan()

    @property
    def counts(self) -> Counter[int]:
        """Return the number of messages found, by channel number."""
        found = Counter({channel: len(times) // 3 for channel, times in self._single.items()})
        for chunk in self._chunks:
            found.update(chunk.counts)
        return found

    @property
    def announced(self) -> Counter[int]:
        """Return the number of messages that the file claims to hold, by channel number."""
        if self._stated is not None:
            return self._stated
        covered = max(1, self._size - self._lost)
        return Counter({c: -(-n * self._size // covered) for c, n in self.counts.items()})

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def messages(
        self, channels: Collection[int], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, recording time and content in time order; `stop_ns` is exclusive."""
        chunks = self._chunks_with(channels, start_ns, stop_ns)
        records = [(chunk.first_ns, chunk.record) for chunk in chunks]
        records += self._single_ones(channels, start_ns, stop_ns)
        order = count()
        waiting: list[tuple[int, int, int, bytes]] = []  # read from a chunk, not yet due
        for time_ns, record in sorted(records):
            while waiting and waiting[0][0] <= time_ns:
                due_ns, _, channel, content = heappop(waiting)
                yield channel, due_ns, content
            for message_ns, channel, content in self._read(record):
                if channel in channels and start_ns <= message_ns < stop_ns:
                    heappush(waiting, (message_ns, next(order), channel, content))
        while waiting:
            due_ns, _, channel, content = heappop(waiting)
            yield channel, due_ns, content

    def count(self, channels: Collection[int], start_ns: int, stop_ns: int) -> int:
        """Count the messages of a span of time; read only the chunks at its ends."""
        found = len(self._single_ones(channels, start_ns, stop_ns))
        for chunk in self._chunks_with(channels, start_ns, stop_ns):
            if start_ns <= chunk.first_ns and chunk.last_ns < stop_ns:
                found += sum(chunk.counts[channel] for channel in channels)
            else:
                for time_ns, channel, _ in self._read(chunk.record):
                    found += channel in channels and start_ns <= time_ns < stop_ns
        return found

    def latest(self, channels: Collection[int], stop_ns: int) -> tuple[int, int, bytes] | None:
        """Return channel, recording time and content of the last message before a time."""
        chunks = self._chunks_with(channels, 0, stop_ns)
        records = [(chunk.last_ns, chunk.record) for chunk in chunks]
        records += self._single_ones(channels, 0, stop_ns)
        found: tuple[int, int, bytes] | None = None
        for last_ns, record in sorted(records, reverse=True):
            if found is not None and last_ns <= found[1]:
                break
            for time_ns, channel, content in self._read(record):
                later = time_ns < stop_ns and (found is None or time_ns >= found[1])
                if channel in channels and later:
                    found = channel, time_ns, content
        return found

    def _chunks_with(self, channels: Collection[int], start_ns: int, stop_ns: int) -> list[_Chunk]:
        return [
            chunk
            for chunk in self._chunks
            if not chunk.counts.keys().isdisjoint(channels)
            and chunk.first_ns < stop_ns
            and chunk.last_ns >= start_ns
        ]

    def _single_ones(
        self, channels: Collection[int], start_ns: int, stop_ns: int
    ) -> list[tuple[int, _Record]]:
        """Return the times and places of messages outside chunks."""
        found = []
        for channel in channels:
            fields = iter(self._single.get(channel, ()))
            for time_ns, begin, end in zip(fields, fields, fields, strict=True):
                if start_ns <= time_ns < stop_ns:
                    found.append((time_ns, _Record(_MESSAGE, begin, end)))
        return found

    def _read(self, record: _Record) -> Iterator[tuple[int, int, bytes]]:
        """Yield time, channel and content of a message, or of all messages in a chunk."""
        if record.opcode == _MESSAGE:
            yield _message(self._content(record))
            return
        try:
            chunk = self._decompressed(record)
        except ValueError as error:
            self.damage.append(f"the chunk at byte {record.begin} of '{self._name}' {error}")
            return
        for inner in _records(BytesIO(chunk), 0, len(chunk)):
            whole = inner.begin + _MESSAGE_HEAD.size <= inner.end <= len(chunk)
            if inner.opcode == _MESSAGE and whole:
                yield _message(chunk[inner.begin : inner.end])

    def _content(self, record: _Record) -> bytes:
        """Return the content of a record, as far as the file holds it, but at most `MAX_BYTES`."""
        self._stream.seek(record.begin)
        end = min(record.end, self._size, record.begin + MAX_BYTES)  # a length may be damaged
        return self._stream.read(max(0, end - record.begin))

    def _decompressed(self, record: _Record) -> bytes:
        """Return the records of a chunk, as far as the file holds them.

        Raises:
            ValueError: if the chunk is damaged or too large.
        """
        length = min(record.end, self._size) - record.begin
        if length > MAX_BYTES:
            raise ValueError(f"is {length} bytes long; at most {MAX_BYTES} are read")
        content = self._content(record)
        try:
            _, _, size, crc, length = _CHUNK_HEAD.unpack_from(content)
            compression = content[_CHUNK_HEAD.size :][:length].decode(errors="replace")
            data = content[_CHUNK_HEAD.size + length + 8 :]
            if size > MAX_BYTES:
                raise ValueError(f"claims to hold {size} bytes; at most {MAX_BYTES} are read")
            if compression == "zstd":
                data = decompress_zstd(data, size)
            elif compression == "lz4":
                data = lz4.frame.LZ4FrameDecompressor().decompress(data, size + 1)
            elif compression:
                raise ValueError(f"is compressed by {compression!r}; expected zstd or lz4")
        except (struct.error, RuntimeError, EOFError) as error:
            raise ValueError(f"is damaged: {error}") from error
        whole = record.end <= self._size
        if whole and (len(data) != size or (crc and crc32(data) != crc)):
            raise ValueError("is damaged: its size or checksum is wrong")
        return data

    def _read_summary(self) -> None:
        """Read the channels, statistics and chunk positions, if the file was finished."""
        end = self._size - _FOOTER_SIZE - len(MAGIC)
        if end < len(MAGIC):
            return
        footer = self._content(_Record(_FOOTER, end, self._size))
        opcode, _, begin = struct.unpack_from("<BQQ", footer)
        if opcode != _FOOTER or not footer.endswith(MAGIC) or not 0 < begin < end:
            return
        for record in _records(self._stream, begin, end):
            content = self._content(record)
            try:
                if record.opcode == _CHUNK_INDEX:
                    self._indexed.append(int(struct.unpack_from("<Q", content, 16)[0]))
                elif record.opcode == _STATISTICS:
                    stated = Counter(dict(struct.iter_unpack("<HQ", content[46:])))
                    if max(stated.values(), default=0) <= MAX_MESSAGES:
                        self._stated = stated
                else:
                    self._announce(record.opcode, content)
            except struct.error:
                continue

    def _announce(self, opcode: int, content: bytes) -> None:
        """Register a schema or a channel."""
        if opcode not in (_SCHEMA, _CHANNEL):
            return
        (number,) = struct.unpack_from("<H", content)
        if opcode == _SCHEMA:
            self._schemas[number] = _text(content, 2)[0]
            return
        (schema,) = struct.unpack_from("<H", content, 2)
        topic, end = _text(content, 4)
        encoding, _ = _text(content, end)
        self._known.add(number)
        msgtype = self._schemas.get(schema, "")
        if encoding == "cdr":
            self.channels[number] = Channel(topic, msgtype)
        else:
            self.foreign.add(f"{topic} ({msgtype} as {encoding})")

    def _scan(self) -> None:
        """Find the messages; after damage, continue at the next known chunk."""
        begin: int | None = len(MAGIC)
        self._lost = 0  # bytes
        while begin is not None:
            at, finished = self._scan_from(begin)
            if finished:
                break
            known = (place for place in self._indexed if at < place < self._size)
            begin = min(known, default=None)
            self._lost += (self._size if begin is None else begin) - at
            if at == self._size:
                found = f"was not finished: it ends at byte {at} without a footer"
            elif begin is None:
                found = f"is cut or damaged at byte {at} of {self._size}"
            else:
                found = f"is damaged from byte {at} to {begin} of {self._size}"
            self.damage.append(f"'{self._name}' {found}")
        first = [chunk.first_ns for chunk in self._chunks]
        last = [chunk.last_ns for chunk in self._chunks]
        single = [time for fields in self._single.values() for time in fields[::3]]
        self.start_ns = min([*first, *single], default=None)
        self.end_ns = max([*last, *single], default=None)

    def _scan_from(self, begin: int) -> tuple[int, bool]:
        """Scan from a position; return where it stopped and whether the file should end there."""
        chunk: _Record | None = None
        index: Counter[int] = Counter()  # of the chunk
        at = begin
        for record in _records(self._stream, begin, self._size):
            if record.end > self._size:
                later = any(record.begin < place < self._size for place in self._indexed)
                if record.opcode != _CHUNK or later:
                    break
                if chunk is not None:
                    self._add_chunk(chunk, index)
                chunk, at = record, self._size  # the part that exists
                self._lost += 1  # at least
                break
            if record.opcode == _MESSAGE_INDEX:
                content = self._content(record)
                if len(content) >= 6:
                    index[struct.unpack_from("<H", content)[0]] += (len(content) - 6) // 16
            else:
                if chunk is not None:
                    self._add_chunk(chunk, index)
                    chunk, index = None, Counter()
                if record.opcode in (_DATA_END, _FOOTER):
                    return at, True
                if record.opcode == _CHUNK:
                    chunk = record
                elif record.opcode == _MESSAGE:
                    self._add_message(record)
                elif record.opcode in (_SCHEMA, _CHANNEL):  # others may be attachments of gigabytes
                    self._try_announce(record.opcode, self._content(record))
            at = record.end
        if chunk is not None:
            self._add_chunk(chunk, Counter())  # its index may be cut
        return at, False

    def _try_announce(self, opcode: int, content: bytes) -> None:
        try:
            self._announce(opcode, content)
        except struct.error:
            self.damage.append(f"a channel of '{self._name}' is damaged")

    def _add_message(self, record: _Record) -> None:
        head = self._content(_Record(_MESSAGE, record.begin, record.begin + _MESSAGE_HEAD.size))
        if record.end - record.begin >= _MESSAGE_HEAD.size:
            channel, _, time_ns, _ = _MESSAGE_HEAD.unpack(head)
            fields = self._single.setdefault(channel, array("Q"))
            fields.extend((time_ns, record.begin, record.end))

    def _add_chunk(self, record: _Record, index: Counter[int]) -> None:
        """Note a chunk; if it has no index of its messages, count them."""
        try:
            if not index or not self._known.issuperset(index):
                chunk = self._decompressed(record)
                index = Counter()
                for inner in _records(BytesIO(chunk), 0, len(chunk)):
                    content = chunk[inner.begin : inner.end]
                    if inner.opcode != _MESSAGE:
                        self._try_announce(inner.opcode, content)
                    elif inner.end <= len(chunk):
                        index[_message(content)[1]] += 1
            head = _Record(_CHUNK, record.begin, record.begin + _CHUNK_HEAD.size)
            first_ns, last_ns, *_ = _CHUNK_HEAD.unpack(self._content(head))
        except (ValueError, struct.error) as error:
            self._lost += min(record.end, self._size) - record.begin
            self.damage.append(f"the chunk at byte {record.begin} of '{self._name}' {error}")
            return
        if index:
            self._chunks.append(_Chunk(first_ns, last_ns, record, index))


def _records(stream: BinaryIO, begin: int, end: int) -> Iterator[_Record]:
    """Yield the records; the last one may be cut."""
    while begin + _RECORD.size <= end:
        stream.seek(begin)
        opcode, length = _RECORD.unpack(stream.read(_RECORD.size))
        if not opcode:  # not a record: file systems leave zeros after a power loss
            return
        record = _Record(opcode, begin + _RECORD.size, begin + _RECORD.size + length)
        yield record
        begin = record.end


def _message(content: bytes) -> tuple[int, int, bytes]:
    """Return the time, channel and content of a message record."""
    channel, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(content)
    return time_ns, channel, content[_MESSAGE_HEAD.size :]


def _text(content: bytes, begin: int) -> tuple[str, int]:
    """Return a length-prefixed text and the position of its end."""
    (length,) = struct.unpack_from("<I", content, begin)
    begin += 4
    return content[begin : begin + length].decode(errors="replace"), begin + length
