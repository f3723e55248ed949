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
from pathlib import Path

# The package comes with rosbags.
if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 20


def decompress(data: bytes) -> bytes:
    """Return the content; if the data is cut, return the part up to the cut.

    Raises:
        ValueError: if the data is damaged.
    """
    try:
        content = (decompressor := zstd.ZstdDecompressor()).decompress(data)
        while decompressor.unused_data:  # another frame
            data = decompressor.unused_data
            content += (decompressor := zstd.ZstdDecompressor()).decompress(data)
    except zstd.ZstdError as error:
        raise ValueError(f"is damaged: {error}") from error
    return bytes(content)


def unpack(path: Path, out: Path) -> None:
    """Decompress a file; if it is cut or damaged, write the part up to there."""
    with path.open("rb") as packed, out.open("wb") as unpacked:
        decompressor = zstd.ZstdDecompressor()
        while block := packed.read(_BLOCK):
            while block:
                if decompressor.eof:
                    decompressor = zstd.ZstdDecompressor()
                try:
                    unpacked.write(decompressor.decompress(block))
                except zstd.ZstdError:
                    return
                block = decompressor.unused_data if decompressor.eof else b""
