# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""OpenVINO on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import openvino as ov

from magicfuse_ros.backends.checks import check_graph, load_error
from magicfuse_ros.backends.cpu import instructions, threads_to_set
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.host import HostBackend
from magicfuse_ros.backends.interface import Joined, JoinedWork, N, Network, Part, Tensor
from magicfuse_ros.backends.openvino_cache import ModelCache
from magicfuse_ros.backends.openvino_join import join, shares, wiring
from magicfuse_ros.bundle import NetworkSpec, TensorSpec, sha256

_PROFILED = 16  # calls of a joined network per profile that is read: reading takes 1 ms


def settings(threads: int, frames_at_once: int = 1) -> dict[str, str | int | bool]:
    """Return the settings for compiling networks for the CPU.

    Args:
        threads: threads for each frame, but all frames at the same time together have at most one
            for each core; 0: all cores.
        frames_at_once: frames that are computed at the same time.
    """
    config: dict[str, str | int | bool] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": frames_at_once,
        # CPUs with AMX would otherwise compute float32 graphs in bfloat16.
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # With pinning, the threads of every process would share the same cores, starting at core 0.
        "ENABLE_CPU_PINNING": False,
    }
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads * frames_at_once
    return config


class OpenVinoBackend(HostBackend):
    """Runs networks with OpenVINO's CPU plugin; tensors are OpenVINO tensors in host memory.

    Attributes:
        cache: compiled models from earlier starts; they compute the same results.
    """

    name = "openvino"
    device = "CPU"

    def __init__(
        self, threads: int = 0, precision: Precision = "fp32", frames_at_once: int = 1
    ) -> None:
        self.precision = precision
        self.frames_at_once = frames_at_once
        self.version: str = ov.get_version().split("-")[0]
        self._core = ov.Core()
        share = threads_to_set()
        most = max(1, share // frames_at_once) if share else 0
        self._config = settings(threads or most, frames_at_once)
        # Compiled models do not depend on threads and frames.
        cpu = (
            ov.get_version(),
            self._core.get_property(self.device, "FULL_DEVICE_NAME"),
            sorted(self._core.get_property(self.device, "OPTIMIZATION_CAPABILITIES")),
            instructions(),
            sorted(settings(0).items()),
        )
        self.cache = ModelCache(self._core, self.device, self.version, repr(cpu))

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Compile a network or load its compiled form. Errors: see `Backend.load`."""
        try:
            # Hash the file itself: a caller may load a variant whose hash nobody recorded.
            name = f"{path.stem}-{sha256(path)[:16]}"
            compiled = self.cache.compile(name, lambda: self._core.read_model(path), self._config)
        except (RuntimeError, OSError) as error:
            raise load_error(path, self.name, error) from error
        inputs = _specs(compiled.inputs, spec.inputs)
        outputs = _specs(compiled.outputs, spec.outputs)
        check_graph(path, spec, inputs, outputs)
        return _OpenVinoNetwork(compiled, [t.name for t in inputs], [t.name for t in outputs])

    def join(
        self, parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
    ) -> Joined | None:
        """Compile all that `work` does as one network. Errors: see `Backend.join`."""
        config = {**self._config, "PERF_COUNT": True}
        try:
            outputs, digest = wiring(parts, inputs, work)
            compiled = self.cache.compile(
                f"joined-{digest[:16]}",
                lambda: join(self._core, parts, inputs, work, self._config),
                config,
            )
        except (RuntimeError, OSError) as error:
            together = Path("+".join(part.name for part in parts))
            raise load_error(together, self.name, error) from error
        return _Joined(compiled, [t.name for t in inputs], outputs, parts)

    def twin(self, network: N) -> N:
        """Return the network with buffers of its own."""
        return cast(N, cast(_OpenVinoNetwork, network).twin())

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Return a tensor that shares the array's memory, or a copy if the array is read-only."""
        return ov.Tensor(array, shared_memory=array.flags.writeable)

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a copy, because the tensor may be a request's buffer."""
        return np.array(tensor.data)


class _OpenVinoNetwork:
    def __init__(self, compiled: Any, inputs: list[str], outputs: list[str]) -> None:
        self._compiled, self._inputs, self._outputs = compiled, inputs, outputs
        # The z_next of one step must stay intact while the next step reads it.
        count = 2 if "z_next" in outputs else 1
        self._requests = [compiled.create_infer_request() for _ in range(count)]
        self._turns = itertools.cycle(
            (r, dict(zip(outputs, r.output_tensors, strict=True))) for r in self._requests
        )

    def twin(self) -> _OpenVinoNetwork:
        return _OpenVinoNetwork(self._compiled, self._inputs, self._outputs)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        request, outputs = next(self._turns)
        for i, name in enumerate(self._inputs):
            request.set_input_tensor(i, inputs[name])
        request.infer(share_outputs=True)  # avoids a copy of each output
        return dict(outputs)


class _Joined(_OpenVinoNetwork):
    def __init__(
        self, compiled: Any, inputs: list[str], outputs: list[str], parts: Sequence[Part]
    ) -> None:
        super().__init__(compiled, inputs, outputs)
        self._parts = parts
        self._calls = 0
        self._shares: dict[str, float] = {}

    def twin(self) -> _Joined:
        return _Joined(self._compiled, self._inputs, self._outputs, self._parts)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = super().__call__(inputs)
        if self._calls % _PROFILED == 0:
            self._shares = shares(self._parts, self._requests[0].get_profiling_info())
        self._calls += 1
        return outputs

    def shares(self) -> Mapping[str, float]:
        """Return each network's share of the time in the latest profiled call, perhaps a twin's."""
        return self._shares


def _specs(ports: Sequence[Any], recorded: Sequence[TensorSpec]) -> list[TensorSpec]:
    specs = []
    for port in ports:
        # A port may also have names from inside the graph, and any_name may return one of those.
        name = next((t.name for t in recorded if t.name in port.names), port.any_name)
        dtype = np.dtype(port.element_type.to_dtype()).name
        specs.append(TensorSpec.model_construct(name=name, dtype=dtype, shape=tuple(port.shape)))
    return specs
