# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The half body: float16 layers, float32 norms and borders; the runtime accepts it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.errors import ExportError
from magicfuse_training.export.bundle import export_bundle, provenance
from magicfuse_training.export.compare import check_half_graph
from magicfuse_training.export.graphs import example_inputs, graphs
from magicfuse_training.model import MagicFuse


def test_a_half_body_runs_and_one_that_is_far_off_is_refused(
    least_model: MagicFuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_bundle(least_model, tmp_path, provenance({}, "abc", [], "none"), "float16")
    bundle = Bundle.load(tmp_path)
    assert bundle.manifest.precision == "float16"
    frame = Fuser(bundle, select("onnxruntime"))(np.full((64, 96, 3), 90, np.uint8))
    assert frame.mag_image is not None

    model = onnx.shape_inference.infer_shapes(onnx.load(bundle.path("ikr")))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    for kind, expected in (
        ("Conv", TensorProto.FLOAT16),
        ("BatchNormalization", TensorProto.FLOAT),
    ):
        found = {types[n.output[0]] for n in model.graph.node if n.op_type == kind}
        assert found == {expected}, kind
    assert {v.type.tensor_type.elem_type for v in model.graph.output} == {TensorProto.FLOAT}

    def refuse(*_: object) -> None:
        raise ExportError("it is far off")

    monkeypatch.setattr("magicfuse_training.export.bundle.check_half_graph", refuse)
    monkeypatch.setattr("magicfuse_training.export.bundle.export_graph", lambda *_: None)
    monkeypatch.setattr("magicfuse_training.export.bundle.check_graph", lambda *_: None)
    monkeypatch.setattr("magicfuse_training.export.bundle.make_half", lambda *_: None)
    with pytest.raises(ExportError, match="far off"):
        export_bundle(least_model, tmp_path, provenance({}, "abc", [], "none"), "float16")
    assert Bundle.load(tmp_path).fingerprint == bundle.fingerprint, "the old bundle is still there"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    graph = graphs(least_model)["ikr"]
    examples = example_inputs(least_model)
    with torch.no_grad():
        least_model.ikr.outlet.weight.mul_(1.1)
    with pytest.raises(ExportError, match=r"ikr\.onnx: output '.*' is .* dB from float32"):
        check_half_graph(bundle.path("ikr"), graph, {k: examples[k] for k in graph.inputs})
