# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Decompresses Zstandard, which bags use by file, by chunk or by message."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# The package comes with rosbags.
if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_BYTES = 1 << 30  # of a chunk or message; recorders write chunks of about 1 MB
_BLOCK = 1 << 17  # read at once
_PIECE = 1 << 20  # unpacked at once: 1 MB may hold 30 GB


def decompress(data: bytes, limit: int) -> bytes:
    """Return the content; if the data is cut, return the part up to the cut.

    Raises:
        ValueError: if the data is damaged, or holds more than `limit` bytes.
    """
    blocks = (data[begin : begin + _BLOCK] for begin in range(0, len(data), _BLOCK))
    pieces, size = [], 0
    try:
        for piece in _unpacked(blocks):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise ValueError(f"holds more than {limit} bytes")
    except zstd.ZstdError as error:
        raise ValueError(f"is damaged: {error}") from error
    return b"".join(pieces)


def unpack(path: Path, out: Path) -> None:
    """Decompress a file; if it is cut or damaged, write the part up to there."""
    with path.open("rb") as packed, out.open("wb") as unpacked:
        try:
            unpacked.writelines(_unpacked(iter(lambda: packed.read(_BLOCK), b"")))
        except zstd.ZstdError:
            return


def _unpacked(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of one or several frames in pieces."""
    decompressor = zstd.ZstdDecompressor()
    for block in blocks:
        more = True
        while more:
            if decompressor.eof:
                decompressor = zstd.ZstdDecompressor()
            yield decompressor.decompress(block, _PIECE)
            block = decompressor.unused_data if decompressor.eof else b""
            more = bool(block) if decompressor.eof else not decompressor.needs_input
