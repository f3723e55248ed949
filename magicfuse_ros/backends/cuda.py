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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from magicfuse_ros.errors import BackendError


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


class _Space:
    """Addresses of the free buffers by their size in bytes."""

    def __init__(self) -> None:
        self.device: defaultdict[int, list[int]] = defaultdict(list)
        self.pinned: defaultdict[int, list[int]] = defaultdict(list)


class _Buffer:
    """An array whose memory is free for reuse when this object is."""

    def __init__(
        self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike, pinned: bool
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self._device = device  # which outlives its buffers
        self.address, free = device.take(self.nbytes, pinned)
        weakref.finalize(self, free.append, self.address)


class DeviceTensor(_Buffer):
    """An array in the device's memory."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        super().__init__(device, shape, dtype, pinned=False)


class PinnedArray(_Buffer):
    """An array in memory of the host that the device copies from and to while the host goes on."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        super().__init__(device, shape, dtype, pinned=True)

    @property
    def array(self) -> npt.NDArray[Any]:
        """A view, good for as long as this object."""
        memory = memoryview((ctypes.c_uint8 * self.nbytes).from_address(self.address))
        return np.frombuffer(memory, self.dtype).reshape(self.shape)


class Event:
    """A point in the queue, with the time when the device came to it."""

    def __init__(self, device: Device) -> None:
        self.handle = device.check(device.cuda.cudaEventCreate())
        weakref.finalize(self, device.cuda.cudaEventDestroy, self.handle)


class Device:
    """The first CUDA device. Not thread-safe.

    Attributes:
        name: of the product.
        compute_capability: such as "8.9".
        stream: handle of the one stream.
        cuda: the module cuda.bindings.runtime.
    """

    def __init__(self) -> None:
        """Take the device.

        Raises:
            BackendError: if there is none, or CUDA fails.
        """
        if reason := missing_device():
            raise BackendError(f"no CUDA device can be used: {reason}")
        from cuda.bindings import runtime

        self.cuda = runtime
        self.check(runtime.cudaSetDevice(0))
        properties = self.check(runtime.cudaGetDeviceProperties(0))
        self.name: str = properties.name.decode()
        self.compute_capability = f"{properties.major}.{properties.minor}"
        stream = self.check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.stream = int(stream)
        self._space = _Space()
        self._recorded = _Space()
        self._recording: list[PinnedArray] | None = None
        self._capturing = False
        self._uploading: list[PinnedArray] = []  # what a copy may still read
        spaces = (self._space, self._recorded)
        weakref.finalize(self, _release, runtime, self.stream, spaces)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceTensor:
        """Return a tensor of any content.

        Raises:
            BackendError: if the memory is used up.
        """
        return DeviceTensor(self, shape, dtype)

    def take(self, nbytes: int, pinned: bool) -> tuple[int, list[int]]:
        """Return the address of a buffer, and the list that it goes to when it is free again.

        Raises:
            BackendError: if the memory is used up.
        """
        space = self._space if self._recording is None else self._recorded
        free = (space.pinned if pinned else space.device)[nbytes]
        if free:
            return free.pop(), free
        flags = (self.cuda.cudaHostAllocDefault,) if pinned else ()
        allocate = self.cuda.cudaHostAlloc if pinned else self.cuda.cudaMalloc
        return int(self.check(allocate(nbytes, *flags))), free

    def upload(self, array: npt.NDArray[Any]) -> DeviceTensor:
        """Queue a copy to the device; the array may change at once."""
        # Recorded, it would send the same values with every frame.
        assert self._recording is None, "recorded work uploads nothing but its inputs"
        pinned = PinnedArray(self, array.shape, array.dtype)
        pinned.array[...] = array
        self._uploading.append(pinned)
        return self.send(pinned)

    def send(self, pinned: PinnedArray) -> DeviceTensor:
        """Queue a copy to the device; the array must not change before that is done."""
        tensor = self.empty(pinned.shape, pinned.dtype)
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(tensor.address, pinned.address, tensor.nbytes, kind)
        return tensor

    def download(self, tensor: DeviceTensor) -> npt.NDArray[Any]:
        """Wait for all queued work and return a copy of a tensor.

        In work that is being recorded, nothing waits: the copy is filled whenever the work is done.
        """
        pinned = PinnedArray(self, tensor.shape, tensor.dtype)
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(pinned.address, tensor.address, tensor.nbytes, kind)
        if self._recording is not None:
            self._recording.append(pinned)
            return pinned.array
        self.synchronize()
        return np.array(pinned.array)

    def synchronize(self) -> None:
        """Wait for all queued work.

        Raises:
            BackendError: if any of it failed.
        """
        self.check(self.cuda.cudaStreamSynchronize(self.stream))
        self._uploading.clear()

    def stamp(self) -> Event:
        """Queue taking the time."""
        event = Event(self)
        # An ordinary event would only order the work that is captured.
        external = self.cuda.cudaEventRecordExternal if self._capturing else 0
        self.check(self.cuda.cudaEventRecordWithFlags(event.handle, self.stream, external))
        return event

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return the time between two stamps that the device has come to."""
        return float(self.check(self.cuda.cudaEventElapsedTime(start.handle, end.handle)))

    @contextmanager
    def recording(self) -> Iterator[list[PinnedArray]]:
        """Take buffers of their own for work that will be repeated; yield those of downloads.

        Graphs share the memory between their inputs and outputs, as none runs beside another. No
        other work may have it: a graph would overwrite what that holds.
        """
        downloads: list[PinnedArray] = []
        self._recording = downloads
        try:
            yield downloads
        finally:
            self._recording = None

    @contextmanager
    def capturing(self) -> Iterator[list[Any]]:
        """Capture what is queued instead of running it; the list then holds the CUDA graph.

        Raises:
            BackendError: if something was done that cannot be captured.
        """
        # The other modes would forbid the process's other threads to allocate on the device, or
        # allow this one to.
        mode = self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.check(self.cuda.cudaStreamBeginCapture(self.stream, mode))
        self._capturing = True
        graph: list[Any] = []
        try:
            yield graph
        except BaseException:
            self.cuda.cudaStreamEndCapture(self.stream)  # fails as well; the first error tells more
            raise
        finally:
            self._capturing = False
        graph.append(self.check(self.cuda.cudaStreamEndCapture(self.stream)))

    def check(self, result: tuple[Any, ...]) -> Any:
        """Return the value of a CUDA call, which gives its status first.

        Raises:
            BackendError: naming the status, if that is an error.
        """
        status, *values = result
        if status != self.cuda.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA failed on {getattr(self, 'name', 'the GPU')}: {status.name}")
        return values[0] if values else None

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        self.check(self.cuda.cudaMemcpyAsync(target, source, nbytes, kind, self.stream))


def _release(cuda: Any, stream: int, spaces: tuple[_Space, ...]) -> None:
    cuda.cudaStreamSynchronize(stream)
    for space in spaces:
        for buffers, give_back in (
            (space.device, cuda.cudaFree),
            (space.pinned, cuda.cudaFreeHost),
        ):
            for addresses in buffers.values():
                for address in addresses:
                    give_back(address)
    cuda.cudaStreamDestroy(stream)
