# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A stand-in for libcudart with host memory on both sides, and the work that tests queue on it.

Work runs only when the stream is synchronised, which is as late as a GPU may run it. Captured work
runs only when its graph is launched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import count
from typing import Any

from magicfuse_ros.backends import cudart
from magicfuse_ros.backends.cuda import Device

NAMES = {
    0: "cudaSuccess",
    1: "cudaErrorInvalidValue",
    2: "cudaErrorMemoryAllocation",
    35: "cudaErrorInsufficientDriver",
    100: "cudaErrorNoDevice",
    700: "cudaErrorIllegalAddress",
    900: "cudaErrorStreamCaptureUnsupported",
    901: "cudaErrorStreamCaptureInvalidated",
}
INVALID_VALUE, MEMORY_ALLOCATION, ILLEGAL_ADDRESS = 1, 2, 700
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 900, 901
STREAM = 7


def copy_on_device(device: Device, target: int, source: int, nbytes: int) -> None:
    """Queue a substitute for a network's work, on a GPU or on the stand-in."""
    arguments = (target, source, nbytes, cudart.COPY_ON_DEVICE, device.stream)
    device.call("cudaMemcpyAsync", *arguments)


class _Function:
    """A C function as ctypes has it: it checks the declared number of arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.argtypes: tuple[Any, ...] = ()
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        assert len(arguments) == len(self.argtypes)
        for argument, kind in zip(arguments, self.argtypes, strict=True):
            kind.from_param(argument)  # raises like ctypes
        return self._function(*arguments)


def _set(out: Any, value: Any) -> int:
    """Write through a pointer made by `byref`."""
    out._obj.value = value
    return 0


class Library:
    """The part of libcudart that the package uses. `broken` becomes the status of every later call.

    Attributes:
        memory: the allocated buffers by address.
        no_instances: whether memory is too full for executable graphs.
    """

    def __init__(self) -> None:
        self.count = 1
        self.driver = 12080  # CUDA 12.8
        self.capability = (8, 9)
        self.multiprocessors = 24
        self.broken = 0
        self.no_instances = False
        self.memory: dict[int, Any] = {}
        self.limit = 1 << 28
        self.queue: list[Callable[[], None]] = []
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, float | None] = {}
        self.flags = 0
        self._captured: list[Callable[[], None]] | None = None
        self._invalidated = False
        self._handles = count(1000)
        self._clock = count()

    def __getattr__(self, name: str) -> _Function:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        known = getattr(type(self), f"_{name}")

        def function(*arguments: Any) -> Any:
            if self.broken and not name.startswith("cudaGetError"):
                return self.broken
            return known(self, *arguments)

        made = _Function(function)
        self.__dict__[name] = made
        return made

    def _allocate(self, out: Any, nbytes: int) -> int:
        if self._captured is not None:
            self._invalidated = True
            return CAPTURE_UNSUPPORTED
        if sum(map(len, self.memory.values())) + nbytes > self.limit:
            return MEMORY_ALLOCATION
        buffer = ctypes.create_string_buffer(nbytes)
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return _set(out, address)

    def _free(self, address: int) -> int:
        del self.memory[address]
        return 0

    def _queue(self, work: Callable[[], None]) -> int:
        (self.queue if self._captured is None else self._captured).append(work)
        return 0

    def _cudaGetErrorName(self, status: int) -> bytes:  # noqa: N802
        return NAMES[status].encode()

    def _cudaGetErrorString(self, status: int) -> bytes:  # noqa: N802
        return b"what it means"

    def _cudaDriverGetVersion(self, out: Any) -> int:  # noqa: N802
        return _set(out, self.driver)

    def _cudaRuntimeGetVersion(self, out: Any) -> int:  # noqa: N802
        return _set(out, 12060)

    def _cudaGetDeviceCount(self, out: Any) -> int:  # noqa: N802
        return _set(out, self.count) if self.count else 100

    def _cudaSetDeviceFlags(self, flags: int) -> int:  # noqa: N802
        self.flags = flags
        return 0

    def _cudaSetDevice(self, index: int) -> int:  # noqa: N802
        return 0

    def _cudaDeviceGetAttribute(self, out: Any, attribute: int, device: int) -> int:  # noqa: N802
        if attribute == cudart.MULTIPROCESSORS:
            return _set(out, self.multiprocessors)
        return _set(out, self.capability[attribute - cudart.COMPUTE_CAPABILITY_MAJOR])

    def _cudaMemGetInfo(self, free: Any, total: Any) -> int:  # noqa: N802
        used = sum(map(len, self.memory.values()))
        return _set(free, self.limit - used) or _set(total, self.limit)

    def _cudaStreamCreateWithFlags(self, out: Any, flags: int) -> int:  # noqa: N802
        return _set(out, STREAM)

    def _cudaStreamDestroy(self, stream: int) -> int:  # noqa: N802
        return 0

    def _cudaMalloc(self, out: Any, nbytes: int) -> int:  # noqa: N802
        return self._allocate(out, nbytes)

    def _cudaHostAlloc(self, out: Any, nbytes: int, flags: int) -> int:  # noqa: N802
        return self._allocate(out, nbytes)

    def _cudaFree(self, address: int) -> int:  # noqa: N802
        return self._free(address)

    def _cudaFreeHost(self, address: int) -> int:  # noqa: N802
        return self._free(address)

    def _cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, nbytes: int, kind: int, stream: int
    ) -> int:
        assert stream == STREAM
        if not (target and source):
            return INVALID_VALUE

        def copy() -> None:
            ctypes.memmove(target, source, nbytes)

        return self._queue(copy)

    def _cudaStreamSynchronize(self, stream: int) -> int:  # noqa: N802
        if self._captured is not None:
            self._invalidated = True
            return CAPTURE_UNSUPPORTED
        while self.queue:
            self.queue.pop(0)()
        return 0

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> int:  # noqa: N802
        assert self._captured is None
        self._captured, self._invalidated = [], False
        return 0

    def _cudaStreamEndCapture(self, stream: int, out: Any) -> int:  # noqa: N802
        assert self._captured is not None
        captured, self._captured = self._captured, None
        if self._invalidated:
            return CAPTURE_INVALIDATED
        return self._made(out, captured)

    def _cudaGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> int:  # noqa: N802
        if self.no_instances:
            return MEMORY_ALLOCATION
        return self._made(out, list(self.graphs[graph]))

    def _made(self, out: Any, work: list[Callable[[], None]]) -> int:
        handle = next(self._handles)
        self.graphs[handle] = work
        return _set(out, handle)

    def _cudaGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        del self.graphs[getattr(graph, "value", graph)]
        return 0

    def _cudaGraphExecDestroy(self, graph: int) -> int:  # noqa: N802
        return self._cudaGraphDestroy(graph)

    def _cudaGraphLaunch(self, graph: int, stream: int) -> int:  # noqa: N802
        self.queue.extend(self.graphs[graph])
        return 0

    def _cudaEventCreateWithFlags(self, out: Any, flags: int) -> int:  # noqa: N802
        handle = next(self._handles)
        self.events[handle] = None
        return _set(out, handle)

    def _cudaEventDestroy(self, event: int) -> int:  # noqa: N802
        del self.events[event]
        return 0

    def _cudaEventRecordWithFlags(self, event: int, stream: int, flags: int) -> int:  # noqa: N802
        if bool(flags) != (self._captured is not None):
            return INVALID_VALUE

        def record() -> None:
            self.events[event] = float(next(self._clock))

        return self._queue(record)

    def _cudaEventElapsedTime(self, out: Any, start: int, end: int) -> int:  # noqa: N802
        first, last = self.events[start], self.events[end]
        assert first is not None and last is not None
        return _set(out, last - first)
