# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Runs built engines with TensorRT or TensorRT for RTX.

Tensors stay in device memory between the networks, and all work is queued on one stream: a call
returns before its result is ready, and `download` waits for it.

Written against the documented API; not measured on a GPU.
"""

from __future__ import annotations

import logging
import os
import shutil
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends.checks import check_graph
from magicfuse_ros.backends.cuda import Device, Event
from magicfuse_ros.backends.cuda_graph import GraphRecorder
from magicfuse_ros.backends.engine_cache import (
    EngineCache,
    EngineKey,
    Miss,
    Precision,
    read_checked,
    write_checked,
)
from magicfuse_ros.backends.interface import (
    Joined,
    JoinedWork,
    N,
    Network,
    Part,
    Recorder,
    Tensor,
)
from magicfuse_ros.backends.tensorrt_library import Library
from magicfuse_ros.backends.tensorrt_log import logger
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkSpec, TensorSpec
from magicfuse_ros.errors import BackendError, EngineError

_log = logging.getLogger(__name__)


class EngineBackend:
    """See `Backend`; tensors are `DeviceTensor`."""

    loads_at_once = 1
    frames_at_once = 1
    records = True

    def __init__(self, library: Library, precision: Precision) -> None:
        """Open the GPU.

        Raises:
            BackendError: if there is none, or the library cannot use it.
        """
        self._gpu = Device()  # first: without a device, the library may kill the process
        self._library = library
        self.precision = precision
        self._trt = library.load()
        self._log = logger(self._trt)
        self._runtime = library.create(self._trt.Runtime, self._log)
        self._key_device = library.device(self._trt, self._gpu)
        self._cache = EngineCache()
        self._compiled: weakref.WeakSet[CompiledCode] = weakref.WeakSet()
        self._keeps_compiled = True
        self.name = library.name
        self.version = library.release(self._trt)
        self.device = f"{self._gpu.name}, {precision}"

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Load the engine that was built from a network. Errors: see `Backend.load`."""
        key = EngineKey.of(spec, self.name, self.version, self._key_device, self.precision)
        found = self._cache.lookup(key)
        if isinstance(found, Miss):
            command = build_command(path.parent, self.name, self.precision)
            raise EngineError(f"{found.reason}; run: {command}")
        self._gpu.make_current()  # the thread that loads is not the one that opened the GPU
        self._log.forget()
        engine = self._runtime.deserialize_cuda_engine(found.engine)
        file = self._cache.path(key)
        code, context = self._context(engine, file) if engine else (None, None)
        if context is None:
            self._gpu.synchronize()  # raises if the GPU itself failed
            raise BackendError(
                f"network '{path.name}': {self.name} refuses its engine on {self._gpu.name}: "
                f"{self._log.told()}; if that lasts, delete '{file}' and run: "
                f"{build_command(path.parent, self.name, self.precision)}"
            )
        for warning in self._log.warned():  # such as an engine of another model of GPU
            _log.warning("network '%s': %s", path.name, warning)
        inputs, outputs = self._tensors(engine)
        # The build may remove an input that the network does not use.
        unused = [t for t in spec.inputs if t.name not in {i.name for i in inputs}]
        check_graph(path, spec, [*inputs, *unused], outputs)
        return _EngineNetwork(path.name, context, code, self._gpu, self._log, inputs, outputs)

    def join(
        self, parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
    ) -> Joined | None:
        """Return None: engines are built separately, and a frame's record joins their calls."""
        return None

    def twin(self, network: N) -> N:
        """Refuse: a GPU computes one frame at a time. Errors: see `Backend.twin`."""
        raise BackendError(f"{self.name} computes 1 frame at a time on {self.device}")

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Return a copy of the array in device memory."""
        return self._gpu.upload(array)

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Wait for all queued work and return a copy."""
        return self._gpu.download(tensor)

    def recorder(self) -> Recorder:
        """Return a recorder that turns the work into a CUDA graph."""
        return GraphRecorder(self._gpu, on_recorded=self._keep_compiled)

    def stamp(self) -> Event:
        """Queue a time stamp."""
        return self._gpu.stamp()

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return the milliseconds between two stamps."""
        return self._gpu.elapsed_ms(start, end)

    def memory(self) -> tuple[int, int]:
        """Return the GPU's free and total memory in bytes, counting all processes."""
        return self._gpu.memory()

    def _context(self, engine: Any, path: Path) -> tuple[CompiledCode | None, Any]:
        """Return the code that a context uses, and the context or None. `path`: the engine file."""
        if not self._library.portable:
            return None, engine.create_execution_context()
        config = engine.create_runtime_config()
        code = CompiledCode(config, path.with_suffix(".compiled"))
        self._compiled.add(code)
        return code, engine.create_execution_context(config)

    def _keep_compiled(self) -> None:
        """Write the code that was compiled for this GPU since the engines were loaded.

        If that fails, warn and do not try again.
        """
        if not self._keeps_compiled:
            return
        try:
            for code in list(self._compiled):
                code.keep()
        except OSError as error:
            self._keeps_compiled = False
            _log.warning(
                "cannot keep what %s compiled for this GPU in '%s': %s; the next start compiles it "
                "again",
                self.name,
                self._cache.root,
                error,
            )

    def _tensors(self, engine: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Return an engine's inputs and outputs."""
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            spec = TensorSpec.model_construct(
                name=name,
                dtype=np.dtype(self._trt.nptype(engine.get_tensor_dtype(name))).name,
                shape=tuple(engine.get_tensor_shape(name)),
            )
            is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(spec)
        return inputs, outputs


def missing_engine(library: Library, bundle: Bundle, precision: Precision) -> str:
    """Return which of a bundle's engines is missing for this GPU; empty if none is.

    Raises:
        BackendError: if there is no GPU, or the library cannot use it.
    """
    gpu = Device()  # first: without a device, the library may kill the process
    trt = library.load()
    device, version = library.device(trt, gpu), library.release(trt)
    cache = EngineCache()
    for name in NETWORKS:
        spec = bundle.manifest.networks[name]
        key = EngineKey.of(spec, library.name, version, device, precision)
        if isinstance(found := cache.lookup(key), Miss):
            return found.reason
    return ""


def build_command(bundle: Path, backend: str, precision: Precision) -> str:
    """Return the command that builds the engines of the bundle in a folder."""
    # After colcon the program is not on PATH.
    by_ros = not shutil.which("magicfuse") and "AMENT_PREFIX_PATH" in os.environ
    program = "ros2 run magicfuse_ros magicfuse" if by_ros else "magicfuse"
    return f"{program} build '{bundle}' --backend {backend} --precision {precision}"


class CompiledCode:
    """The code that TensorRT for RTX has compiled from one engine for this GPU and driver.

    The library compiles it whenever an engine is loaded and first called, which takes seconds. With
    a file beside the engine it does so only once. The library itself rejects code for another GPU,
    driver or release.
    """

    def __init__(self, config: Any, path: Path) -> None:
        """Give an `IRuntimeConfig` a cache with the file's content, if the library accepts it."""
        self._config = config
        self._cache = config.create_runtime_cache()
        self._path = path
        self._kept = b""
        try:
            content = read_checked(path)
            if self._cache.deserialize(content):
                self._kept = content
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("'%s' is not used: %s; the first frame compiles again", path, error)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write the file if there is anything new. Errors: see `write_whole`."""
        content = bytes(self._cache.serialize())
        if content != self._kept:
            write_checked(self._path, content)
            self._kept = content


class _EngineNetwork:
    def __init__(
        self,
        name: str,
        context: Any,
        code: CompiledCode | None,
        gpu: Device,
        log: Any,
        inputs: list[TensorSpec],
        outputs: list[TensorSpec],
    ) -> None:
        self._name = name
        self._context = context
        # The library does not keep these alive for the context, and they must outlive it: Python
        # releases attributes in the order in which they were set.
        self._code = code
        self._gpu = gpu
        self._log = log
        self._inputs = [tensor.name for tensor in inputs]
        self._outputs = outputs

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = {t.name: self._gpu.empty(t.shape, t.dtype) for t in self._outputs}
        tensors = {name: inputs[name] for name in self._inputs} | outputs
        self._log.forget()
        accepted = [self._context.set_tensor_address(n, t.address) for n, t in tensors.items()]
        if not all(accepted) or not self._context.execute_async_v3(self._gpu.stream):
            raise BackendError(
                f"network '{self._name}': the GPU did not accept the call: {self._log.told()}"
            )
        return outputs
