# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The CUDA device: whether there is one, its memory, and one stream that orders all its work.

Freed buffers are kept for reuse and never returned to CUDA while the device is in use, so a frame
allocates nothing. All work runs on one stream, so a buffer may be reused while the work that last
read it is still queued.

Written against the documented API of the CUDA runtime; not measured on a GPU.
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

from magicfuse_ros.backends import cudart
from magicfuse_ros.backends.cudart import CudaRuntime
from magicfuse_ros.errors import BackendError


def missing_device() -> str:
    """Return why no CUDA device can be used; empty if one can."""
    return cudart.load()[1]


class _Space:
    """Addresses of the free buffers, by size in bytes."""

    def __init__(self) -> None:
        self.device: defaultdict[int, list[int]] = defaultdict(list)
        self.pinned: defaultdict[int, list[int]] = defaultdict(list)


class _Buffer:
    """An array whose memory can be reused once this object is deleted."""

    def __init__(
        self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike, pinned: bool
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self._device = device  # keeps the device alive as long as its buffers
        self.address, free = device.take(self.nbytes, pinned)
        weakref.finalize(self, free.append, self.address)


class DeviceTensor(_Buffer):
    """An array in the device's memory."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        super().__init__(device, shape, dtype, pinned=False)


class PinnedArray(_Buffer):
    """An array in pinned host memory: the device copies it asynchronously."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        super().__init__(device, shape, dtype, pinned=True)

    @property
    def array(self) -> npt.NDArray[Any]:
        """A view that is valid as long as this object lives."""
        memory = memoryview((ctypes.c_uint8 * self.nbytes).from_address(self.address))
        return np.frombuffer(memory, self.dtype).reshape(self.shape)


class Event:
    """A point in the queue, with the time when the device reached it."""

    def __init__(self, device: Device) -> None:
        self.handle: int = device.get("cudaEventCreateWithFlags", ctypes.c_void_p, 0)
        weakref.finalize(self, device.cuda.status, "cudaEventDestroy", self.handle)


class Device:
    """The first CUDA device. Not thread-safe.

    Attributes:
        name: product name.
        compute_capability: for example "8.9".
        multiprocessors: how many the device has.
        stream: handle of the one stream.
        cuda: the CUDA runtime.
    """

    def __init__(self) -> None:
        """Open the device.

        Raises:
            BackendError: if there is none, or CUDA fails.
        """
        runtime, reason = cudart.load()
        if runtime is None:
            raise BackendError(f"no CUDA device can be used: {reason}")
        self.cuda: CudaRuntime = runtime
        self.name = "the GPU"
        # A waiting thread must not keep a core busy.
        runtime.status("cudaSetDeviceFlags", cudart.SCHEDULE_BLOCKING_SYNC)
        self.make_current()
        self.name = cudart.device_name(0)
        major, minor, self.multiprocessors = (
            int(self.get("cudaDeviceGetAttribute", ctypes.c_int, attribute, 0))
            for attribute in (
                cudart.COMPUTE_CAPABILITY_MAJOR,
                cudart.COMPUTE_CAPABILITY_MINOR,
                cudart.MULTIPROCESSORS,
            )
        )
        self.compute_capability = f"{major}.{minor}"
        self.stream: int = self.get(
            "cudaStreamCreateWithFlags", ctypes.c_void_p, cudart.STREAM_NON_BLOCKING
        )
        self._space = _Space()
        self._recorded = _Space()
        self._recording: list[PinnedArray] | None = None
        self._capturing = False
        self._uploading: list[PinnedArray] = []  # arrays that a queued copy may still read
        spaces = (self._space, self._recorded)
        weakref.finalize(self, _release, runtime, self.stream, spaces)

    def make_current(self) -> None:
        """Make this the calling thread's GPU, for libraries that use the current GPU."""
        self.call("cudaSetDevice", 0)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceTensor:
        """Return an uninitialised tensor.

        Raises:
            BackendError: if the memory is used up.
        """
        return DeviceTensor(self, shape, dtype)

    def take(self, nbytes: int, pinned: bool) -> tuple[int, list[int]]:
        """Return the address of a buffer, and the list that it goes back to once it is free.

        Raises:
            BackendError: if the memory is used up.
        """
        space = self._space if self._recording is None else self._recorded
        free = (space.pinned if pinned else space.device)[nbytes]
        if free:
            return free.pop(), free
        function, flags = ("cudaHostAlloc", (0,)) if pinned else ("cudaMalloc", ())
        return int(self.get(function, ctypes.c_void_p, nbytes, *flags)), free

    def upload(self, array: npt.NDArray[Any]) -> DeviceTensor:
        """Queue a copy to the device; the caller may change the array right away."""
        # A recorded upload would send the same values with every frame.
        assert self._recording is None, "recorded work uploads nothing but its inputs"
        pinned = PinnedArray(self, array.shape, array.dtype)
        pinned.array[...] = array
        self._uploading.append(pinned)
        return self.send(pinned)

    def send(self, pinned: PinnedArray) -> DeviceTensor:
        """Queue a copy to the device; the array must not change before the copy is done."""
        tensor = self.empty(pinned.shape, pinned.dtype)
        self._copy(tensor.address, pinned.address, tensor.nbytes, cudart.COPY_TO_DEVICE)
        return tensor

    def download(self, tensor: DeviceTensor) -> npt.NDArray[Any]:
        """Wait for all queued work and return a copy of a tensor.

        While work is being recorded, this does not wait: each run of the work fills the copy.
        """
        pinned = PinnedArray(self, tensor.shape, tensor.dtype)
        self._copy(pinned.address, tensor.address, tensor.nbytes, cudart.COPY_TO_HOST)
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
        self.call("cudaStreamSynchronize", self.stream)
        self._uploading.clear()

    def stamp(self) -> Event:
        """Queue a time stamp."""
        event = Event(self)
        # While capturing, an ordinary event would only order the captured work.
        how = cudart.EVENT_EXTERNAL if self._capturing else cudart.EVENT_DEFAULT
        self.call("cudaEventRecordWithFlags", event.handle, self.stream, how)
        return event

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return the time between two stamps that the device has reached."""
        ms = self.get("cudaEventElapsedTime", ctypes.c_float, start.handle, end.handle)
        return float(ms)

    def memory(self) -> tuple[int, int]:
        """Return the device's free and total memory in bytes, counting all processes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    @contextmanager
    def recording(self) -> Iterator[list[PinnedArray]]:
        """Use separate buffers for work that will be repeated; yield those of its downloads.

        Graphs share the memory between their inputs and outputs, because they never run at the same
        time. No other work may use that memory: a graph would overwrite it.
        """
        downloads: list[PinnedArray] = []
        self._recording = downloads
        try:
            yield downloads
        finally:
            self._recording = None

    @contextmanager
    def capturing(self) -> Iterator[list[int]]:
        """Capture the queued work instead of running it; the list then holds the CUDA graph.

        Raises:
            BackendError: if something in the work cannot be captured.
        """
        # The other modes would either stop the process's other threads from allocating on the
        # device, or let this thread allocate.
        self.call("cudaStreamBeginCapture", self.stream, cudart.CAPTURE_THREAD_LOCAL)
        self._capturing = True
        graph: list[int] = []
        captured = ctypes.c_void_p()
        end = ("cudaStreamEndCapture", self.stream, ctypes.byref(captured))
        try:
            yield graph
        except BaseException:
            self.cuda.status(*end)  # this call fails, too; the first error says more
            if captured.value:
                self.cuda.status("cudaGraphDestroy", captured)
            raise
        finally:
            self._capturing = False
        self.call(*end)
        assert captured.value
        graph.append(captured.value)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the CUDA runtime.

        Raises:
            DeviceLostError: if it fails and CUDA is unusable for the rest of this process.
            BackendError: if it fails otherwise. Both name the GPU, the function and the status.
        """
        try:
            self.cuda.call(name, *arguments)
        except BackendError as error:
            raise type(error)(f"CUDA failed on {self.name}: {error}") from error

    def get(self, name: str, kind: Any, *arguments: Any) -> Any:
        """Return what a function writes to its first argument, a ctypes `kind`. See `call`."""
        result = kind()
        self.call(name, ctypes.byref(result), *arguments)
        return result.value

    def _copy(self, target: int, source: int, nbytes: int, kind: int) -> None:
        self.call("cudaMemcpyAsync", target, source, nbytes, kind, self.stream)


def _release(cuda: CudaRuntime, stream: int, spaces: tuple[_Space, ...]) -> None:
    cuda.status("cudaStreamSynchronize", stream)
    for space in spaces:
        for buffers, give_back in ((space.device, "cudaFree"), (space.pinned, "cudaFreeHost")):
            for addresses in buffers.values():
                for address in addresses:
                    cuda.status(give_back, address)
    cuda.status("cudaStreamDestroy", stream)
