# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The preset for Jetson and RTX: engines for RTX GPUs are built from random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from magicfuse_ros import backends
from magicfuse_ros.bench.gpu_peak import _Unwatched
from magicfuse_ros.bundle import NETWORKS, NetworkSpec
from magicfuse_training.export.bundle import export_graph, round_weights_to_half
from magicfuse_training.export.graphs import example_inputs, graphs
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import load_preset


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)
def test_every_network_of_edge_builds_in_half_precision(tmp_path: Path) -> None:
    preset = load_preset("edge")
    model = MagicFuse(preset).eval()
    round_weights_to_half(model)
    examples = example_inputs(model)
    builder = backends.builder("tensorrt_rtx", "fp16")
    parameters = 0
    for name, graph in graphs(model).items():
        path = tmp_path / f"{name}.onnx"
        export_graph(graph, {k: examples[k] for k in graph.inputs}, path)
        spec = NetworkSpec(
            file=path.name, sha256="0" * 64, inputs=(), outputs=(), parameters=0, gflop=0
        )
        engine = builder.build(path, spec, "sm_89", "fp16", _Unwatched())
        stored = path.stat().st_size
        parameters += stored // 2
        assert 0.9 * stored < len(engine) < 2 * stored + 5e6, name
        print(f"{name}: {stored / 1e6:.1f} MB of ONNX, {len(engine) / 1e6:.1f} MB of engine")
    assert set(graphs(model)) == set(NETWORKS)
    assert 50e6 < parameters < 80e6
