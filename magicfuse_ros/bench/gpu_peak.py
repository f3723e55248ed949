# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The convolution peak of a GPU, with the library and precision of the timed pipeline.

As on a CPU (see `conv_peak`), it times 3x3 convolutions in a row, here large enough to fill a GPU.
Their engines are built once and kept beside those of the bundle.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from magicfuse_ros import backends
from magicfuse_ros.backends.engine_cache import EngineCache, EngineKey, Hit
from magicfuse_ros.backends.interface import Backend, Network
from magicfuse_ros.bundle import NetworkSpec, TensorSpec

SHAPES = ((128, 120, 160), (256, 60, 80))  # channels, rows, columns
LAYERS = 8
CALLS = 5


class GpuPeak:
    """Chains of convolution and ReLU on a GPU backend."""

    def __init__(self, backend: Backend) -> None:
        """Build the engines, or load them if they have been built before.

        Raises:
            BackendError: if they cannot be built or loaded.
        """
        self._backend = backend
        self._chains: list[tuple[float, Network, dict[str, object]]] = []
        with tempfile.TemporaryDirectory() as folder:
            for channels, rows, columns in SHAPES:
                shape = (1, channels, rows, columns)
                path = Path(folder) / f"peak_{channels}.onnx"
                network = backend.load(path, _built(backend, path, shape))
                tensor = backend.upload(np.ones(shape, np.float32))
                gflop = 2 * 9 * channels**2 * rows * columns * LAYERS / 1e9
                self._chains.append((gflop, network, {"in": tensor}))

    def measure(self, repeats: int = 3) -> float:
        """Return the best GFLOP/s (2 FLOP per multiply-add) over all shapes and repeats."""
        best = 0.0
        for gflop, network, inputs in self._chains:
            network(inputs)
            for _ in range(repeats):
                start = self._backend.stamp()
                for _ in range(CALLS):
                    outputs = network(inputs)
                end = self._backend.stamp()
                self._backend.download(outputs["out"])  # waits
                best = max(best, CALLS * gflop / (self._backend.elapsed_ms(start, end) / 1e3))
        return best


def _built(backend: Backend, path: Path, shape: tuple[int, ...]) -> NetworkSpec:
    """Write a chain's ONNX file, build its engine if the cache lacks it, and return its spec."""
    data = _chain(shape).SerializeToString(deterministic=True)
    path.write_bytes(data)
    tensors = [TensorSpec(name=n, dtype="float32", shape=shape) for n in ("in", "out")]
    spec = NetworkSpec(
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        inputs=(tensors[0],),
        outputs=(tensors[1],),
        parameters=0,
        gflop=0,
    )
    builder, cache = backends.builder(backend.name, backend.precision), EngineCache()
    (device,) = builder.devices([])
    key = EngineKey.of(spec, builder.name, builder.version, device, backend.precision)
    with cache.locked(key, on_wait=lambda: None):
        if not isinstance(cache.lookup(key), Hit):
            cache.store(key, builder.build(path, spec, device, backend.precision, _Unwatched()))
    return spec


def _chain(shape: tuple[int, ...]) -> onnx.ModelProto:
    channels = shape[1]
    random = np.random.default_rng(0)
    nodes, weights = [], []
    last = "in"
    for layer in range(LAYERS):
        values = random.standard_normal((channels, channels, 3, 3), np.float32)
        values *= np.sqrt(2 / (9 * channels), dtype=np.float32)  # keeps the scale of the values
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        result = "out" if layer == LAYERS - 1 else f"r{layer}"
        nodes += [
            helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{layer}"], [result]),
        ]
        last = result
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("in", "out")]
    graph = helper.make_graph(nodes, "peak", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class _Unwatched:
    """A `BuildMonitor` that shows nothing."""

    cancelled = False

    def step(self, phase: str, done: int, total: int) -> None:
        """Do nothing."""
