"""OpenVINO on the CPU."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from magicfuse_ros.backends.checks import check_graph, load_error
from magicfuse_ros.backends.engine_cache import EngineCache, EngineKey, Hit, Precision
from magicfuse_ros.backends.host import HostBackend
from magicfuse_ros.backends.interface import BuildMonitor, Joined, JoinedWork, Network, Part, Tensor
from magicfuse_ros.backends.openvino_join import join, shares
from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.errors import BackendError

_log = logging.getLogger(__name__)
_PROFILED = 16  # calls of a joined network for each profile that is read: reading takes 1 ms


def settings(threads: int) -> dict[str, str | int | bool]:
    """Return the settings for compiling networks for the CPU; 0 threads uses all cores."""
    config: dict[str, str | int | bool] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # CPUs with AMX would otherwise compute float32 graphs in bfloat16.
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # With pinning, the threads of every process would share the same cores, starting at core 0.
        "ENABLE_CPU_PINNING": False,
    }
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    return config


class OpenVinoBackend(HostBackend):
    """Runs networks with OpenVINO's CPU plugin; tensors are OpenVINO tensors in host memory.

    It is its own `Builder`: an engine is a compiled network. It loads faster than the ONNX file and
    computes the same results.
    """

    name = "openvino"
    device = "CPU"

    def __init__(self, threads: int = 0, precision: Precision = "fp32") -> None:
        self.precision = precision
        self.version: str = ov.get_version().split("-")[0]
        self._core = ov.Core()
        capabilities = self._core.get_property(self.device, "OPTIMIZATION_CAPABILITIES")
        name = self._core.get_property(self.device, "FULL_DEVICE_NAME")
        self._cpu = f"{name} ({' '.join(sorted(capabilities))})"
        self._config = settings(threads)

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Compile a network or load its compiled form. Errors: see `Backend.load`."""
        found = EngineCache().lookup(self._key(spec))
        try:
            if isinstance(found, Hit):
                compiled = self._core.import_model(found.engine, self.device, self._config)
            else:
                if found.state != "absent":
                    _log.warning("%s; compiling %s instead", found.reason, path)
                compiled = self._compile(path)
        except RuntimeError as error:
            raise load_error(path, self.name, error) from error
        inputs = _specs(compiled.inputs, spec.inputs)
        outputs = _specs(compiled.outputs, spec.outputs)
        check_graph(path, spec, inputs, outputs)
        # Two alternating requests keep the z_next of one step intact while the next step reads it.
        requests = [compiled.create_infer_request() for _ in range(2)]
        return _Network(requests, [t.name for t in inputs], [t.name for t in outputs])

    def join(
        self, parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
    ) -> Joined | None:
        """Compile all that `work` does as one network. Errors: see `Backend.join`."""
        config = {**self._config, "PERF_COUNT": True}
        try:
            model = join(self._core, parts, inputs, work)
            outputs = [result.output(0).any_name for result in model.get_results()]
            compiled = self._core.compile_model(model, self.device, config)
        except RuntimeError as error:
            together = Path("+".join(part.name for part in parts))
            raise load_error(together, self.name, error) from error
        request = compiled.create_infer_request()
        return _Joined(request, [t.name for t in inputs], outputs, parts)

    def devices(self, compute_capabilities: Sequence[str]) -> list[str]:
        """Return the CPU of this machine. Errors: see `Builder.devices`."""
        if compute_capabilities:
            raise BackendError(
                f"compute capability is {compute_capabilities[0]}; {self.name} builds for the CPU "
                "of this machine, which has none"
            )
        return [self._cpu]

    def build(
        self,
        path: Path,
        spec: NetworkSpec,
        device: str,
        precision: Precision,
        monitor: BuildMonitor,
    ) -> bytes:
        """Compile a network. Errors: see `Builder.build`."""
        monitor.step("compiling", 0, 1)
        engine = io.BytesIO()
        try:
            self._compile(path).export_model(engine)
        except RuntimeError as error:
            raise load_error(path, self.name, error) from error
        monitor.step("compiled", 1, 1)
        return engine.getvalue()

    def _compile(self, path: Path) -> Any:
        return self._core.compile_model(path, self.device, self._config)

    def _key(self, spec: NetworkSpec) -> EngineKey:
        return EngineKey.of(spec, self.name, self.version, self._cpu, self.precision)

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Return a tensor that shares the array's memory, or a copy if the array is read-only."""
        return ov.Tensor(array, shared_memory=array.flags.writeable)

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a copy, because the tensor may be a request's buffer."""
        return np.array(tensor.data)


class _Network:
    def __init__(self, requests: list[Any], inputs: list[str], outputs: list[str]) -> None:
        self._inputs = inputs
        self._turns = itertools.cycle(
            (r, dict(zip(outputs, r.output_tensors, strict=True))) for r in requests
        )

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        request, outputs = next(self._turns)
        for i, name in enumerate(self._inputs):
            request.set_input_tensor(i, inputs[name])
        request.infer(share_outputs=True)  # avoids a copy of each output
        return dict(outputs)


class _Joined(_Network):
    def __init__(
        self, request: Any, inputs: list[str], outputs: list[str], parts: Sequence[Part]
    ) -> None:
        super().__init__([request], inputs, outputs)
        self._request, self._parts = request, parts
        self._calls = 0
        self._shares: dict[str, float] = {}

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = super().__call__(inputs)
        if self._calls % _PROFILED == 0:
            self._shares = shares(self._parts, self._request.get_profiling_info())
        self._calls += 1
        return outputs

    def shares(self) -> Mapping[str, float]:
        """Return each network's share of the time in the latest profiled call."""
        return self._shares


def _specs(ports: Sequence[Any], recorded: Sequence[TensorSpec]) -> list[TensorSpec]:
    specs = []
    for port in ports:
        # A port may also have names from inside the graph, and any_name may return one of those.
        name = next((t.name for t in recorded if t.name in port.names), port.any_name)
        dtype = np.dtype(port.element_type.to_dtype()).name
        specs.append(TensorSpec.model_construct(name=name, dtype=dtype, shape=tuple(port.shape)))
    return specs
