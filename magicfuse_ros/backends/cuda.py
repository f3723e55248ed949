"""The CUDA device: whether there is one, its memory, and one stream that orders all its work.

Buffers are kept for reuse, never given back while the device is in use: a frame then allocates
nothing. As all work is on one stream, a buffer may be handed out again while the work that last
read it is still queued.

Written against the documented API of cuda-python; not measured on a GPU.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from magicfuse_ros.errors import BackendError

_Buffers = defaultdict[int, list[int]]  # addresses by size in bytes


def missing_device() -> str:
    """Return why no CUDA device can be used; empty where one can."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        return f"cuda-bindings is not installed: {error}"
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess:
        return str(status.name)
    return "" if count else "cudaGetDeviceCount is 0"


class DeviceTensor:
    """An array in the device's memory, which is free for reuse when this object is."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self.address = device.take(self.nbytes)
        weakref.finalize(self, device.give_back, self.address, self.nbytes)


class Device:
    """The first CUDA device. Not thread-safe.

    Attributes:
        name: of the product.
        compute_capability: such as "8.9".
        stream: handle of the one stream.
    """

    def __init__(self) -> None:
        """Take the device.

        Raises:
            BackendError: if there is none, or CUDA fails.
        """
        if reason := missing_device():
            raise BackendError(f"no CUDA device can be used: {reason}")
        from cuda.bindings import runtime

        self._cuda = runtime
        self._check(runtime.cudaSetDevice(0))
        properties = self._check(runtime.cudaGetDeviceProperties(0))
        self.name: str = properties.name.decode()
        self.compute_capability = f"{properties.major}.{properties.minor}"
        stream = self._check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.stream = int(stream)
        self._free: _Buffers = defaultdict(list)
        self._pinned: _Buffers = defaultdict(list)
        self._uploading: list[tuple[int, int]] = []  # pinned buffers that a copy may still read
        weakref.finalize(self, _release, runtime, self.stream, self._free, self._pinned)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceTensor:
        """Return a tensor of any content.

        Raises:
            BackendError: if the memory is used up.
        """
        return DeviceTensor(self, shape, dtype)

    def take(self, nbytes: int) -> int:
        """Return the address of a buffer in the device's memory.

        Raises:
            BackendError: if the memory is used up.
        """
        if free := self._free[nbytes]:
            return free.pop()
        return int(self._check(self._cuda.cudaMalloc(nbytes)))

    def give_back(self, address: int, nbytes: int) -> None:
        """Free a buffer for work that is queued from now on."""
        self._free[nbytes].append(address)

    def upload(self, array: npt.NDArray[Any]) -> DeviceTensor:
        """Queue a copy to the device; the array may change at once."""
        tensor = self.empty(array.shape, array.dtype)
        pinned = self._take_pinned(tensor.nbytes)
        _view(pinned, tensor)[...] = array
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(tensor.address, pinned, tensor.nbytes, kind)
        self._uploading.append((pinned, tensor.nbytes))
        return tensor

    def download(self, tensor: DeviceTensor) -> npt.NDArray[Any]:
        """Wait for all queued work and return a copy of a tensor."""
        pinned = self._take_pinned(tensor.nbytes)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(pinned, tensor.address, tensor.nbytes, kind)
        self._check(self._cuda.cudaStreamSynchronize(self.stream))
        array = np.array(_view(pinned, tensor))
        for address, nbytes in (*self._uploading, (pinned, tensor.nbytes)):
            self._pinned[nbytes].append(address)
        self._uploading.clear()
        return array

    def _take_pinned(self, nbytes: int) -> int:
        if free := self._pinned[nbytes]:
            return free.pop()
        flags = self._cuda.cudaHostAllocDefault
        return int(self._check(self._cuda.cudaHostAlloc(nbytes, flags)))

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        self._check(self._cuda.cudaMemcpyAsync(target, source, nbytes, kind, self.stream))

    def _check(self, result: tuple[Any, ...]) -> Any:
        """Return the value of a CUDA call, which gives its status first."""
        status, *values = result
        if status != self._cuda.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA failed on {getattr(self, 'name', 'the GPU')}: {status.name}")
        return values[0] if values else None


def _view(address: int, like: DeviceTensor) -> npt.NDArray[Any]:
    memory = memoryview((ctypes.c_uint8 * like.nbytes).from_address(address))
    return np.frombuffer(memory, like.dtype).reshape(like.shape)


def _release(cuda: Any, stream: int, free: _Buffers, pinned: _Buffers) -> None:
    cuda.cudaStreamSynchronize(stream)
    for buffers, give_back in ((free, cuda.cudaFree), (pinned, cuda.cudaFreeHost)):
        for addresses in buffers.values():
            for address in addresses:
                give_back(address)
    cuda.cudaStreamDestroy(stream)
