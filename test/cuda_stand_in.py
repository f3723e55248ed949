"""A stand-in for cuda-python with the host's memory on both sides, and what tests queue on it.

Work runs only when the stream is waited for, as late as a GPU may run it; captured work only when
its graph is launched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import Enum
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any


def copy_on_device(target: int, source: int, nbytes: int, stream: int) -> tuple[Any]:
    """Queue what stands for a network's work, with cuda-python or with what stands in for it."""
    from cuda.bindings import runtime

    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    status: tuple[Any] = runtime.cudaMemcpyAsync(target, source, nbytes, kind, stream)
    return status


class Status(Enum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


class Runtime(ModuleType):
    """As much of cuda.bindings.runtime as the package uses."""

    cudaError_t = Status  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaHostAllocDefault = 0  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaEventRecordExternal = 1  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.count: tuple[Status, int | None] = (Status.cudaSuccess, 1)
        self.memory: dict[int, Any] = {}
        self.limit = 1 << 28
        self.queue: list[Callable[[], None]] = []
        self.graphs: dict[str, list[Callable[[], None]]] = {}
        self.events: dict[str, float | None] = {}
        self._captured: list[Callable[[], None]] | None = None
        self._invalidated = False
        self._names = map("handle {}".format, count())
        self._clock = count()

    def _allocate(self, nbytes: int) -> tuple[Status, int | None]:
        if self._captured is not None:
            self._invalidated = True
            return Status.cudaErrorStreamCaptureUnsupported, None
        if sum(map(len, self.memory.values())) + nbytes > self.limit:
            return Status.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(nbytes)
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return Status.cudaSuccess, address

    def _free(self, address: int) -> tuple[Status]:
        del self.memory[address]
        return (Status.cudaSuccess,)

    def _queue(self, work: Callable[[], None]) -> tuple[Status]:
        (self.queue if self._captured is None else self._captured).append(work)
        return (Status.cudaSuccess,)

    def cudaGetDeviceCount(self) -> tuple[Status, int | None]:  # noqa: N802
        return self.count

    def cudaSetDevice(self, index: int) -> tuple[Status]:  # noqa: N802
        return (Status.cudaSuccess,)

    def cudaGetDeviceProperties(self, index: int) -> tuple[Status, Any]:  # noqa: N802
        return Status.cudaSuccess, SimpleNamespace(name=b"Test GPU", major=8, minor=9)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:  # noqa: N802
        return Status.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:  # noqa: N802
        return (Status.cudaSuccess,)

    def cudaMalloc(self, nbytes: int) -> tuple[Status, int | None]:  # noqa: N802
        return self._allocate(nbytes)

    def cudaHostAlloc(self, nbytes: int, flags: int) -> tuple[Status, int | None]:  # noqa: N802
        return self._allocate(nbytes)

    def cudaFree(self, address: int) -> tuple[Status]:  # noqa: N802
        return self._free(address)

    def cudaFreeHost(self, address: int) -> tuple[Status]:  # noqa: N802
        return self._free(address)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, nbytes: int, kind: int, stream: int
    ) -> tuple[Status]:
        assert stream == 7
        if not (target and source):
            return (Status.cudaErrorInvalidValue,)

        def copy() -> None:
            ctypes.memmove(target, source, nbytes)

        return self._queue(copy)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        if self._captured is not None:
            self._invalidated = True
            return (Status.cudaErrorStreamCaptureUnsupported,)
        while self.queue:
            self.queue.pop(0)()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Status]:  # noqa: N802
        assert self._captured is None
        self._captured, self._invalidated = [], False
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, str | None]:  # noqa: N802
        assert self._captured is not None
        captured, self._captured = self._captured, None
        if self._invalidated:
            return Status.cudaErrorStreamCaptureInvalidated, None
        name = next(self._names)
        self.graphs[name] = captured
        return Status.cudaSuccess, name

    def cudaGraphInstantiate(self, graph: str, flags: int) -> tuple[Status, str]:  # noqa: N802
        name = next(self._names)
        self.graphs[name] = list(self.graphs[graph])
        return Status.cudaSuccess, name

    def cudaGraphDestroy(self, graph: str) -> tuple[Status]:  # noqa: N802
        del self.graphs[graph]
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: str) -> tuple[Status]:  # noqa: N802
        return self.cudaGraphDestroy(graph)

    def cudaGraphLaunch(self, graph: str, stream: int) -> tuple[Status]:  # noqa: N802
        self.queue.extend(self.graphs[graph])
        return (Status.cudaSuccess,)

    def cudaEventCreate(self) -> tuple[Status, str]:  # noqa: N802
        name = next(self._names)
        self.events[name] = None
        return Status.cudaSuccess, name

    def cudaEventDestroy(self, event: str) -> tuple[Status]:  # noqa: N802
        del self.events[event]
        return (Status.cudaSuccess,)

    def cudaEventRecordWithFlags(  # noqa: N802
        self, event: str, stream: int, flags: int
    ) -> tuple[Status]:
        if bool(flags) != (self._captured is not None):
            return (Status.cudaErrorInvalidValue,)

        def record() -> None:
            self.events[event] = float(next(self._clock))

        return self._queue(record)

    def cudaEventElapsedTime(self, start: str, end: str) -> tuple[Status, float]:  # noqa: N802
        first, last = self.events[start], self.events[end]
        assert first is not None and last is not None
        return Status.cudaSuccess, last - first
