# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Finds and loads the CUDA runtime library, libcudart, and calls it with ctypes.

It uses only functions whose signature is the same in CUDA 12 and 13, so either release works. It
takes the first library that the driver accepts: the system's, a toolkit's, or one from the wheels
nvidia-cuda-runtime-cu12 and nvidia-cuda-runtime.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from time import monotonic
from typing import Any

from magicfuse_ros.errors import BackendError, DeviceLostError

MAJORS = (13, 12)
COPY_TO_DEVICE, COPY_TO_HOST, COPY_ON_DEVICE = 1, 2, 3  # cudaMemcpyKind
STREAM_NON_BLOCKING = 1
CAPTURE_THREAD_LOCAL = 1  # cudaStreamCaptureMode
EVENT_DEFAULT, EVENT_EXTERNAL = 0, 1  # how an event is recorded
SCHEDULE_BLOCKING_SYNC = 4  # waiting threads sleep
# cudaDeviceAttr
MULTIPROCESSORS, COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 16, 75, 76

_SUCCESS = 0
_INSUFFICIENT_DRIVER = 35
_NO_DEVICE = 100
# After one of these every call fails until the process ends. The documentation of cudaError says so
# for most of them; an ECC error (214), a destroyed context (709) and an unknown error (999) behave
# the same.
_LOST = frozenset({214, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999})
# What an owner can do if CUDA's own text does not say. Most of these errors come from a broken
# installation.
_REMEDIES = {
    2: "nvidia-smi, or tegrastats on a Jetson, shows what fills the memory",
    34: "LD_LIBRARY_PATH leads to a folder 'stubs' instead of to the driver",
    46: "another process has the GPU for itself; see nvidia-smi",
    222: "the driver is older than the library that it runs: update the driver",
    802: "is nvidia-fabricmanager running?",
    803: "the driver's library and its kernel module are of different releases: restart the "
    "machine after a driver update; LD_LIBRARY_PATH must not name another driver",
    804: "take the folder 'compat' of CUDA out of LD_LIBRARY_PATH, or update the driver",
    999: "after a suspend: sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm, or restart the "
    "machine; on a Jetson the user must be in the group video",
}

_NOT_FOUND = "cannot open shared object file: No such file"  # the loader's message
_TOOLKITS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/*/lib", "/usr/local/cuda-*/lib64")
_OUT = POINTER(c_void_p)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaDriverGetVersion": (POINTER(c_int),),
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaSetDevice": (c_int,),
    "cudaSetDeviceFlags": (c_uint,),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaMalloc": (_OUT, c_size_t),
    "cudaFree": (c_void_p,),
    "cudaHostAlloc": (_OUT, c_size_t, c_uint),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreateWithFlags": (_OUT, c_uint),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, _OUT),
    "cudaGraphInstantiateWithFlags": (_OUT, c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaEventCreateWithFlags": (_OUT, c_uint),
    "cudaEventDestroy": (c_void_p,),
    "cudaEventRecordWithFlags": (c_void_p, c_void_p, c_uint),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
}


class CudaRuntime:
    """A loaded libcudart.

    Attributes:
        path: the library's path, as passed to the loader.
    """

    def __init__(self, path: str) -> None:
        """Load the library.

        Raises:
            OSError: if it does not exist or cannot be loaded.
            AttributeError: if it lacks a function.
        """
        self.path = path
        self._library = ctypes.CDLL(path)
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, c_int
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            function = getattr(self._library, name)
            function.argtypes, function.restype = (c_int,), c_char_p

    def status(self, name: str, *arguments: Any) -> int:
        """Call a function and return its status. Use it if errors must not raise: on release."""
        return int(getattr(self._library, name)(*arguments))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            DeviceLostError: if it failed and CUDA is unusable for the rest of this process.
            BackendError: if it failed otherwise.
        """
        if status := self.status(name, *arguments):
            message = f"{name}: {self.describe(status)}"
            raise (DeviceLostError if status in _LOST else BackendError)(message)

    def get(self, name: str, kind: Any, *arguments: Any) -> Any:
        """Call a function that writes its result to its first argument; return that result.

        Errors: see `call`.
        """
        result = kind()
        self.call(name, ctypes.byref(result), *arguments)
        return result.value

    def describe(self, status: int) -> str:
        """Return a status as "cudaErrorNoDevice (100): no CUDA-capable device is detected".

        A remedy follows if one is known.
        """
        name, text = (
            getattr(self._library, f)(status).decode()
            for f in ("cudaGetErrorName", "cudaGetErrorString")
        )
        remedy = _REMEDIES.get(status)
        return f"{name} ({status}): {text}" + (f"; {remedy}" if remedy else "")

    def version(self) -> str:
        """Return the library's CUDA release, such as "12.6"."""
        return _release(self.get("cudaRuntimeGetVersion", c_int))

    def driver_version(self) -> str:
        """Return the latest CUDA release that the driver supports; empty without a driver."""
        version = self.get("cudaDriverGetVersion", c_int)
        return _release(version) if version else ""

    def obstacle(self) -> str:
        """Return why this library finds no usable GPU; empty if it finds one."""
        count = c_int()
        status = self.status("cudaGetDeviceCount", ctypes.byref(count))
        if status == _SUCCESS and count.value:
            return ""
        if status == _INSUFFICIENT_DRIVER:
            if not (driver := self.driver_version()):
                return (
                    "no NVIDIA driver is loaded: libcuda.so.1 cannot be loaded here; install the "
                    "driver, or start the container with the GPU (--gpus all, on a Jetson "
                    "--runtime nvidia)"
                )
            remedy = "update the driver"
            if not self.version().startswith("12."):
                remedy += ", or pip install nvidia-cuda-runtime-cu12"
            return (
                f"the NVIDIA driver is too old: it serves CUDA {driver}, '{self.path}' is of CUDA "
                f"{self.version()}; {remedy}"
            )
        if status in (_SUCCESS, _NO_DEVICE):
            return _no_gpu()
        return self.describe(status)


_loaded: list[CudaRuntime] = []  # kept for the life of the process
_asked: dict[str, float] = {}  # when a library first found no GPU, seconds of the steady clock
_ASK_AGAIN_S = 2.0
_COUNT = """
import ctypes, sys
count = ctypes.c_int()
sys.exit(ctypes.CDLL(sys.argv[1]).cudaGetDeviceCount(ctypes.byref(count)) != 0 or count.value < 1)
"""


def load() -> tuple[CudaRuntime | None, str]:
    """Return the first libcudart that finds a GPU, or None and the reason.

    The reason comes from the oldest library found, because drivers support older ones first.

    Raises:
        DeviceLostError: if a GPU came after this process had asked for one. CUDA keeps its first
            answer for the life of a process.
    """
    if _loaded:
        return _loaded[0], ""
    reason = (
        "the CUDA runtime is not installed: no libcudart.so.12 or .13 in the library path, in "
        "/usr/local/cuda or in this Python's packages; on a PC, pip install "
        "nvidia-cuda-runtime-cu12; on a Jetson, sudo apt install cuda-cudart-12-6 "
        "(JetPack 7.0 and 7.1: cuda-cudart-13-0; 7.2: cuda-cudart-13-2)"
    )
    found = False
    for path in _candidates():
        try:
            runtime = CudaRuntime(path)
        except (OSError, AttributeError) as error:
            # A bare name is only a guess, unless the loader found a file of that name.
            if not found and ("/" in path or _NOT_FOUND not in str(error)):
                reason = f"the CUDA runtime '{path}' cannot be used: {error}"
            continue
        found = True
        if not (reason := runtime.obstacle()):
            _loaded.append(runtime)
            return runtime, ""
        if monotonic() - _asked.setdefault(path, monotonic()) > _ASK_AGAIN_S and _came(path):
            raise DeviceLostError(
                "the GPU's driver came after this process had looked for it, and CUDA finds it "
                "only in a new process"
            )
    return None, reason


def _came(path: str) -> bool:
    """Return whether a library finds a GPU in a process that has not asked before."""
    command = [sys.executable, "-c", _COUNT, path]
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def device_name(index: int) -> str:
    """Return a GPU's product name; only the driver's own library gives it without a struct.

    Raises:
        BackendError: if that fails.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(f"the NVIDIA driver's library cannot be loaded: {error}") from error
    name, device = ctypes.create_string_buffer(256), c_int()
    status = (
        driver.cuInit(c_uint(0))
        or driver.cuDeviceGet(ctypes.byref(device), c_int(index))
        or driver.cuDeviceGetName(name, c_int(len(name)), device)
    )
    if status:
        raise BackendError(f"the NVIDIA driver does not name its GPU {index}: error {status}")
    return name.value.decode(errors="replace")


def _candidates() -> Iterator[str]:
    """Yield names and paths to try, for each major release the most specific ones first."""
    for major in MAJORS:
        file = f"libcudart.so.{major}"
        yield file
        for folder in _TOOLKITS:
            yield from map(str, sorted(Path("/").glob(f"{folder[1:]}/{file}")))
        try:
            wheels = importlib.util.find_spec("nvidia")
        except (ImportError, ValueError):
            wheels = None
        for root in (wheels and wheels.submodule_search_locations) or ():
            yield from map(str, sorted(Path(root).glob(f"*/lib/{file}")))


def _no_gpu() -> str:
    """Return why a driver that works may show no GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"the NVIDIA driver shows no GPU: CUDA_VISIBLE_DEVICES is '{visible}'"
    return (
        "the NVIDIA driver sees no GPU: none is there, its kernel module is not loaded (see "
        "nvidia-smi), MIG is on without an instance, or the container was started without the GPU "
        "(--gpus all, on a Jetson --runtime nvidia)"
    )


def _release(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
