# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Finds the first incomplete tensor of a truncated file of weights."""

from __future__ import annotations

import json
import mmap
import pickletools
import re
from pathlib import Path
from typing import IO, Any, cast

_ZIP_ENTRY = b"PK\x03\x04"
_BYTES = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4}  # per element
_STORAGE = re.compile(rb"/data/(\d+)$")  # name of a tensor's bytes in a .pth file


def first_cut(path: Path) -> str | None:
    """Return the name of the first incomplete tensor of a .pth or .safetensors file.

    Return None if nothing is missing or if it cannot be determined: the file is of another kind, or
    its table of contents is truncated too. Nothing in the file is executed.
    """
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _of_pth(data) if data[:4] == _ZIP_ENTRY else _of_safetensors(data)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            return None


def _of_safetensors(data: mmap.mmap) -> str | None:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    ends = {k: 8 + size + v["data_offsets"][1] for k, v in header.items() if "dtype" in v}
    missing = [k for k, end in sorted(ends.items(), key=lambda e: e[1]) if end > len(data)]
    return missing[0] if missing else None


def _of_pth(data: mmap.mmap) -> str | None:
    """Read a zip file: a pickle with the names first, then the bytes of the tensors in order.

    The zip directory is at the end and therefore lost, but each entry begins with its name.
    """
    data.seek(_entry(data, 0)[1])
    storages = _storages(data)
    at = data.rfind(_ZIP_ENTRY)
    while (match := _STORAGE.search(_entry(data, at)[0])) is None and at > 0:
        at = data.rfind(_ZIP_ENTRY, 0, at)
    keys = list(storages)
    if match is None:
        return storages[keys[0]][0]
    key = match[1].decode()
    name, size = storages[key]
    if _entry(data, at)[1] + size > len(data):
        return name
    following = keys[keys.index(key) + 1 :]
    return storages[following[0]][0] if following else None


def _entry(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    """Return the name of the entry that begins at an offset, and the offset of its bytes."""
    name, extra = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (26, 28))
    return data[at + 30 : at + 30 + name], at + 30 + name + extra


def _storages(pickle: mmap.mmap) -> dict[str, tuple[str, int]]:
    """Read a tensor's name and its size in bytes, by the key of its storage, from a pickle.

    A tensor is pickled as its name, a function, and values that locate its bytes: "storage", class,
    key, device, number of elements.
    """
    values: list[Any] = []
    memo: dict[Any, Any] = {}
    storages: dict[str, tuple[str, int]] = {}
    for operation, value, _ in pickletools.genops(cast(IO[bytes], pickle)):
        if operation.name in ("BINPUT", "LONG_BINPUT"):
            memo[value] = values[-1]
        elif operation.name in ("BINGET", "LONG_BINGET"):
            values.append(memo[value])
        elif operation.name == "BINPERSID":
            name, _, _, kind, key, _, count = values[-7:]
            size = _BYTES[kind.removeprefix("torch ").removesuffix("Storage")]
            storages.setdefault(key, (name, count * size))
        elif value is not None:
            values.append(value)
    return storages
