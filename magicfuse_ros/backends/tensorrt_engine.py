"""Runs built engines with TensorRT or TensorRT for RTX.

Tensors stay in the device's memory between the networks, and all work is queued on one stream:
a call returns before its result is there, and `download` waits for it.

Written against the documented API; not measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends.checks import check_graph
from magicfuse_ros.backends.cuda import Device, Event
from magicfuse_ros.backends.cuda_graph import GraphRecorder
from magicfuse_ros.backends.interface import Joined, JoinedWork, Network, Part, Recorder, Tensor
from magicfuse_ros.backends.tensorrt_library import Library
from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.engine_cache import EngineCache, EngineKey, Miss, Precision
from magicfuse_ros.errors import BackendError, EngineError


class EngineBackend:
    """See `Backend`; tensors are `DeviceTensor`."""

    loads_at_once = 1

    def __init__(self, library: Library, precision: Precision) -> None:
        """Take the GPU.

        Raises:
            BackendError: if there is none, or the library is too old.
        """
        self._gpu = Device()  # first: without a device, the library may end the process
        self._library = library
        self.precision = precision
        self._trt = library.load()
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        self._cache = EngineCache()
        self.name = library.name
        self.version: str = self._trt.__version__
        self.device = f"{self._gpu.name}, {precision}"

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Load the engine that was built of a network. Errors: see `Backend.load`."""
        device = self._library.device(self._gpu)
        found = self._cache.lookup(
            EngineKey.of(spec, self.name, self.version, device, self.precision)
        )
        if isinstance(found, Miss):
            raise EngineError(
                f"{found.reason}; run: magicfuse build '{path.parent}' --backend {self.name} "
                f"--precision {self.precision}"
            )
        engine = self._runtime.deserialize_cuda_engine(found.engine)
        context = engine and engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"network '{path.name}': {self.name} refuses its engine on {self._gpu.name}; the "
                "GPU may be out of memory"
            )
        inputs, outputs = self._tensors(engine)
        # An input that the network does not use may be gone from the engine.
        unused = [t for t in spec.inputs if t.name not in {i.name for i in inputs}]
        check_graph(path, spec, [*inputs, *unused], outputs)
        return _Network(path.name, context, self._gpu, inputs, outputs)

    def join(
        self, parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
    ) -> Joined | None:
        """Return None: engines are built one by one, and a record of a frame joins their calls."""
        return None

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Return a copy of the array in the device's memory."""
        return self._gpu.upload(array)

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Wait for all queued work and return a copy."""
        return self._gpu.download(tensor)

    def recorder(self) -> Recorder:
        """Return what makes a CUDA graph of the work."""
        return GraphRecorder(self._gpu)

    def stamp(self) -> Event:
        """Queue taking the time."""
        return self._gpu.stamp()

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Return the milliseconds between two stamps."""
        return self._gpu.elapsed_ms(start, end)

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


class _Network:
    def __init__(
        self,
        name: str,
        context: Any,
        gpu: Device,
        inputs: list[TensorSpec],
        outputs: list[TensorSpec],
    ) -> None:
        self._name = name
        self._context = context
        self._gpu = gpu
        self._inputs = [tensor.name for tensor in inputs]
        self._outputs = outputs

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = {t.name: self._gpu.empty(t.shape, t.dtype) for t in self._outputs}
        tensors = {name: inputs[name] for name in self._inputs} | outputs
        accepted = [self._context.set_tensor_address(n, t.address) for n, t in tensors.items()]
        if not all(accepted) or not self._context.execute_async_v3(self._gpu.stream):
            raise BackendError(f"network '{self._name}': the GPU did not accept the call")
        return outputs
