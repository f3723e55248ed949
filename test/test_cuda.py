"""The device's memory, on a stand-in for cuda-python that has the host's memory for both sides."""

from __future__ import annotations

import ctypes
import gc
import sys
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from magicfuse_ros.backends.cuda import Device, missing_device
from magicfuse_ros.errors import BackendError


class Status(Enum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815


class Runtime(ModuleType):
    """Copies run only when the stream is waited for, as late as a GPU may run them."""

    cudaError_t = Status  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaHostAllocDefault = 0  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.count: tuple[Status, int | None] = (Status.cudaSuccess, 1)
        self.memory: dict[int, Any] = {}
        self.limit = 1 << 20
        self.queue: list[tuple[int, int, int]] = []

    def _allocate(self, nbytes: int) -> tuple[Status, int | None]:
        if sum(map(len, self.memory.values())) + nbytes > self.limit:
            return Status.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(nbytes)
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return Status.cudaSuccess, address

    def _free(self, address: int) -> tuple[Status]:
        del self.memory[address]
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
        self.queue.append((target, source, nbytes))
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        for target, source, nbytes in self.queue:
            ctypes.memmove(target, source, nbytes)
        self.queue.clear()
        return (Status.cudaSuccess,)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime = Runtime()
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    return runtime


def test_a_device_is_missing_for_a_named_reason(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_device() == ""
    runtime.count = (Status.cudaErrorNoDevice, None)
    assert missing_device() == "cudaErrorNoDevice"
    runtime.count = (Status.cudaSuccess, 0)
    assert missing_device() == "cudaGetDeviceCount is 0"
    with pytest.raises(BackendError, match="no CUDA device can be used: cudaGetDeviceCount is 0"):
        Device()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert missing_device().startswith("cuda-bindings is not installed: ")


def test_uploads_are_what_they_were_and_downloads_last(runtime: Runtime) -> None:
    device = Device()
    assert (device.name, device.compute_capability) == ("Test GPU", "8.9")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = device.upload(array)
    array += 100  # may change at once
    second = device.upload(array)
    downloaded = device.download(first)
    np.testing.assert_array_equal(downloaded, np.arange(6).reshape(2, 3))
    for _ in range(3):
        device.download(second)
    np.testing.assert_array_equal(downloaded, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(device.download(second), array)
    assert downloaded.dtype == np.float32


def test_a_frame_after_the_first_allocates_nothing(runtime: Runtime) -> None:
    device = Device()
    constant = device.upload(np.ones(4, np.float32))

    def frame(value: int) -> None:
        image = device.upload(np.full((8, 8), value, np.uint8))
        result = device.empty((8, 8), np.uint8)
        runtime.queue.append((result.address, image.address, image.nbytes))  # a network
        assert (device.download(result) == value).all()

    frame(1)
    allocated = len(runtime.memory)
    for value in range(2, 6):
        frame(value)
    assert len(runtime.memory) == allocated
    assert (device.download(constant) == 1).all()


def test_all_memory_is_given_back_with_the_device(runtime: Runtime) -> None:
    device = Device()
    tensor = device.upload(np.ones(4))
    device.download(tensor)
    assert runtime.memory
    del device
    gc.collect()
    assert runtime.memory  # the tensor is in use
    del tensor
    gc.collect()
    assert not runtime.memory


def test_a_gpu_that_is_full_is_an_error_that_names_it(runtime: Runtime) -> None:
    runtime.limit = 100
    with pytest.raises(BackendError, match="CUDA failed on Test GPU: cudaErrorMemoryAllocation"):
        Device().empty((200,), np.uint8)
