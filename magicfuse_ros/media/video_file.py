# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks the outermost structure of a video file: is it complete, and does it have its index?

It looks only at the sizes that MP4, AVI and Matroska write before their parts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MATROSKA = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"moof", b"styp")


def stated_size(path: Path) -> int | None:
    """Return the size in bytes of the complete file; None if the format does not state it.

    A file that is being written, or whose recorder was killed, often does not state it either.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        begin = stream.read(12)
        if begin[4:8] in _BOXES:
            return max((end for _, end in _boxes(stream, size)), default=None)
        if begin[:4] == b"RIFF" and begin[8:] == b"AVI ":
            return _riff_size(stream, size)
        if begin[:4] == _MATROSKA:
            return _matroska_size(stream)
    return None


def lacks_index(path: Path) -> bool:
    """Return whether the file is an MP4 without its index; nothing of it can be decoded then."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(8)[4:] not in _BOXES:
            return False
        return all(kind != b"moov" for kind, _ in _boxes(stream, size))


def _boxes(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield the type of every top-level box, and the position of its end."""
    begin = 0
    while begin + 8 <= size:
        stream.seek(begin)
        length, kind = struct.unpack(">I4s", stream.read(8))
        if length == 1:
            length = int.from_bytes(stream.read(8), "big")
        elif length == 0:  # up to the end of the file
            length = size - begin
        if length < 8 or (begin and not kind.isascii()):
            return  # other bytes after the last box
        begin += length
        yield kind, begin


def _riff_size(stream: BinaryIO, size: int) -> int:
    """Return the end of the last RIFF: a file of more than 1 GB has several."""
    begin = 0
    while begin + 8 <= size:
        stream.seek(begin)
        kind, length = struct.unpack("<4sI", stream.read(8))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
            break
        begin += 8 + length + length % 2
    return begin


def _matroska_size(stream: BinaryIO) -> int | None:
    stream.seek(4)
    header = _ebml_size(stream)
    if header is None:
        return None
    stream.seek(header, 1)
    if stream.read(4) != _SEGMENT:
        return None
    length = _ebml_size(stream)
    return None if length is None else stream.tell() + length


def _ebml_size(stream: BinaryIO) -> int | None:
    """Read a size of 1 to 8 bytes; its leading zeros give the length. All ones mean unknown."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    mask = (1 << (7 * (more + 1))) - 1
    value = int.from_bytes(first + stream.read(more), "big") & mask
    return None if value == mask else value
