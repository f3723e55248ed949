# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks from its bytes whether an ONNX file holds all of its weights itself.

A tensor may name another file that holds its data. Every library opens such a file, wherever it
is, and a hash of the ONNX file does not cover its content. The vehicle has no `onnx` package, so
this module reads the protobuf encoding itself: fields as key and value, and only the messages that
lead to a tensor. Field numbers come from onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR = "model", "graph", "node", "attribute", "tensor"
_FUNCTION, _SPARSE, _TRAINING = "function", "sparse tensor", "training"
_INSIDE: dict[str, dict[int, str]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {
        5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE,
    },
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _TENSOR: {},
}  # fmt: skip
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 100  # of nested messages, as in protobuf
_MAX_FIELDS = 2_000_000  # a graph of 10,000 nodes has 200,000


class DamagedOnnxError(ValueError):
    """Bytes that are not an ONNX model."""


def external_tensor(path: Path) -> str | None:
    """Return the name of the first tensor whose data is in another file; None if there is none.

    Raises:
        OSError: if the file cannot be read.
        DamagedOnnxError: if it is not an ONNX file, or has millions of fields.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise DamagedOnnxError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).search(_MODEL, 0, len(data), 0)


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._fields = 0

    def search(self, kind: str, begin: int, end: int, depth: int) -> str | None:
        """Return the name of the first external tensor in a message, if there is one."""
        if depth > _MAX_DEPTH:
            raise DamagedOnnxError(f"its messages are nested more than {_MAX_DEPTH} deep")
        name, external = "", False
        for number, value in self._read(begin, end):
            if kind == _TENSOR:
                if number == _TENSOR_NAME and isinstance(value, slice):
                    name = self._data[value].decode(errors="replace")
                external |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            elif isinstance(value, slice) and number in _INSIDE[kind]:
                inside = _INSIDE[kind][number]
                if (found := self.search(inside, value.start, value.stop, depth + 1)) is not None:
                    return found
        return name if external else None

    def _read(self, begin: int, end: int) -> Iterator[tuple[int, int | slice]]:
        """Yield the number and value of each field: an integer, or the slice of its bytes."""
        while begin < end:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise DamagedOnnxError(f"it has more than {_MAX_FIELDS} fields")
            key, begin = self._varint(begin, end)
            wire = key & 7
            value: int | slice
            if wire == _VARINT:
                value, begin = self._varint(begin, end)
            elif wire in (_FIXED64, _FIXED32, _BYTES):
                size = 8 if wire == _FIXED64 else 4
                if wire == _BYTES:
                    size, begin = self._varint(begin, end)
                value = slice(begin, begin + size)
                begin += size
                if begin > end:
                    raise DamagedOnnxError("a field is longer than what holds it")
            else:
                raise DamagedOnnxError(f"a field has the wire type {wire}")
            yield key >> 3, value

    def _varint(self, begin: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if begin >= end:
                break
            byte = self._data[begin]
            begin += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, begin
        raise DamagedOnnxError("a number in it does not end")
