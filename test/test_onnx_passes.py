# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What the passes change and what they keep, verified with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from magicfuse_ros.backends.onnx_passes import (
    fold_constants,
    fold_norms,
    half_body,
    uint8_at_borders,
)
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName
from magicfuse_ros.errors import BackendError

NANO = Path(__file__).resolve().parents[1] / "engines" / "nano"
Arrays = dict[str, npt.NDArray[Any]]
STEP = {
    "t": np.array([499], np.float32),
    "abar_t": np.array([0.3], np.float32),
    "abar_next": np.array([0.9], np.float32),
    "tau": np.array([1], np.float32),  # an active cap jumps where two classes are equally likely
}


def run(model: Any, inputs: Arrays) -> list[npt.NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    # Optimisation would remove casts.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    outputs: list[npt.NDArray[Any]] = session.run(None, inputs)
    return outputs


def decibels(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    signal = np.square(expected, dtype=np.float64).mean()
    noise = np.square(actual.astype(np.float64) - expected).mean()
    return float(10 * np.log10(signal / noise)) if noise else float("inf")


def chain(bundle: Bundle) -> dict[NetworkName, tuple[Arrays, list[npt.NDArray[Any]]]]:
    """Run all networks on each other's outputs; return inputs and outputs of each."""
    random = np.random.default_rng(0)
    known: Arrays = dict(STEP)
    size = (bundle.manifest.height // 16, bundle.manifest.width // 16)
    image = random.integers(0, 256, (1, *size, 3), np.uint8)
    known["image"] = known["visible"] = image.repeat(16, axis=1).repeat(16, axis=2)
    results: dict[NetworkName, tuple[Arrays, list[npt.NDArray[Any]]]] = {}
    for name in NETWORKS:
        spec = bundle.manifest.networks[name]
        for tensor in spec.inputs:
            if tensor.name not in known:
                known[tensor.name] = random.standard_normal(tensor.shape, np.float32)
        inputs = {tensor.name: known[tensor.name] for tensor in spec.inputs}
        outputs = run(onnx.load(bundle.path(name)), inputs)
        results[name] = inputs, outputs
        rename = {"z_next": "z", "z_seg_next": "z_seg"}
        suffix = f"_{name}" if name in ("ikr", "ckg") else ""
        for tensor, value in zip(spec.outputs, outputs, strict=True):
            known[rename.get(tensor.name, f"{tensor.name}{suffix}")] = value
    return results


@pytest.fixture(scope="session", params=["tiny", "nano"])
def bundle(request: pytest.FixtureRequest, tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle if request.param == "tiny" else NANO)


def test_nothing_changes_in_float32_and_half_stays_within_50_db(bundle: Bundle) -> None:
    for name, (inputs, expected) in chain(bundle).items():
        exact = uint8_at_borders(fold_constants(onnx.load(bundle.path(name))), name)
        folded = fold_norms(exact)
        half = half_body(folded)
        types = types_of(half)
        for node in half.graph.node:
            if node.op_type == "Conv":
                assert types[node.output[0]] == TensorProto.FLOAT16
        # numpy computes folded sums; its last bit may differ from the runtime's.
        for model, limit in ((exact, 130.0), (folded, 100.0), (half, 50.0)):
            taken = {n for node in model.graph.node for n in node.input}
            assert {t.name for t in model.graph.initializer} <= taken, "nothing is left over"
            outputs = zip(
                bundle.manifest.networks[name].outputs,
                run(rounded(model) if model is half else model, inputs),
                expected,
                strict=True,
            )
            for tensor, actual, wanted in outputs:
                assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
                if tensor.name == "mask":  # ids, not magnitudes
                    assert (actual != wanted).mean() <= (0 if model is exact else 1e-3)
                else:
                    assert decibels(actual, wanted) >= limit, (name, tensor.name)


def types_of(model: Any) -> dict[str, int]:
    model = onnx.shape_inference.infer_shapes(model)
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return {v.name: v.type.tensor_type.elem_type for v in values}


def rounded(model: Any) -> Any:
    """Return a model in float32 that rounds wherever `model` has float16.

    onnxruntime computes float16 nodes in float32 on a CPU, and drops its own casts between them: an
    overflow that a GPU would have does not show.
    """
    half = {name for name, kind in types_of(model).items() if kind == TensorProto.FLOAT16}
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:], made.graph.value_info[:], made.graph.initializer[:]
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        single = value.astype(np.float32) if value.dtype == np.float16 else value
        made.graph.initializer.append(numpy_helper.from_array(single, tensor.name))
    for node in model.graph.node:
        copy = made.graph.node.add()
        copy.CopyFrom(node)
        for attribute in copy.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.t.data_type == TensorProto.FLOAT16:
                single = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(single))
        for i, name in enumerate(copy.output):
            if name in half:
                copy.output[i] = f"{name}.exact"
                for kind, given, out in (
                    (TensorProto.FLOAT16, f"{name}.exact", f"{name}.half"),
                    (TensorProto.FLOAT, f"{name}.half", name),
                ):
                    made.graph.node.append(helper.make_node("Cast", [given], [out], to=kind))
    return made


def test_an_overflow_in_half_shows_here() -> None:
    large = np.full((1, 4, 1, 1), 300, np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["h", "w"], ["c"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Cast", ["m"], ["y_out"], to=TensorProto.FLOAT),
    ]
    shapes = {"x": (TensorProto.FLOAT, [1, 4, 1, 1]), "y_out": (TensorProto.FLOAT, [1, 1, 1, 1])}
    model = made(nodes, shapes, {"w": large, "s": np.array(0.001, np.float16)})
    inputs = {"x": np.full((1, 4, 1, 1), 100, np.float32)}
    assert np.isinf(run(rounded(model), inputs)[0]).all()


def made(nodes: list[Any], shapes: dict[str, tuple[int, list[int]]], weights: Arrays) -> Any:
    """Make a model of nodes; `shapes` lists the inputs, then the outputs (names end in _out)."""
    values = {n: helper.make_tensor_value_info(n, *s) for n, s in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "graph",
        [v for n, v in values.items() if not n.endswith("_out")],
        [v for n, v in values.items() if n.endswith("_out")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_layers_get_half_and_norms_time_and_ddim_arithmetic_stay_float32() -> None:
    size = [1, 4, 8, 8]
    conv = np.full((4, 4, 1, 1), 0.1, np.float32)
    ones = np.ones(4, np.float32)
    node = helper.make_node
    model = made(
        [
            node("Cos", ["t"], ["wave"]),
            node("Add", ["z", "wave"], ["shifted"]),
            node("Conv", ["shifted", "w"], ["first"]),
            node("BatchNormalization", ["first", "one", "one", "one", "one"], ["normal"]),
            node("Relu", ["normal"], ["relu"]),
            node("Conv", ["relu", "w"], ["second"]),
            node("Sigmoid", ["second"], ["tail"]),
            node("Mul", ["tail", "t"], ["x0_out"]),
        ],
        {
            "z": (TensorProto.FLOAT, size),
            "t": (TensorProto.FLOAT, [1]),
            "x0_out": (TensorProto.FLOAT, size),
        },
        {"w": conv, "one": ones},
    )
    half = half_body(model)
    types = types_of(half)
    kinds = {n.op_type: types[n.output[0]] for n in half.graph.node if n.op_type != "Cast"}
    assert {op for op, kind in kinds.items() if kind == TensorProto.FLOAT16} == {"Conv", "Relu"}
    assert kinds["BatchNormalization"] == TensorProto.FLOAT
    assert types["x0_out"] == types["z"] == TensorProto.FLOAT


def test_a_norm_is_folded_into_the_convolution_that_only_it_reads() -> None:
    size = [1, 4, 8, 8]
    random = np.random.default_rng(0)
    norm = [f"norm{i}" for i in range(4)]
    model = made(
        [
            helper.make_node("Conv", ["z", "w"], ["first"]),
            helper.make_node("BatchNormalization", ["first", *norm], ["one"], epsilon=0.1),
            helper.make_node("Conv", ["one", "w", "norm0"], ["shared"]),
            helper.make_node("BatchNormalization", ["shared", *norm], ["two"]),
            helper.make_node("Add", ["two", "shared"], ["last_out"]),
        ],
        {n: (TensorProto.FLOAT, size) for n in ("z", "last_out")},
        {
            "w": random.standard_normal((4, 4, 1, 1)).astype(np.float32),
            **{name: random.uniform(0.5, 2, 4).astype(np.float32) for name in norm},
        },
    )
    folded = fold_norms(model)
    kinds = [node.op_type for node in folded.graph.node]
    assert kinds == ["Conv", "Conv", "BatchNormalization", "Add"]
    inputs = {"z": random.standard_normal(size).astype(np.float32)}
    (actual,), (expected,) = run(folded, inputs), run(model, inputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_half_tensor_that_is_also_an_output_keeps_name_and_type() -> None:
    size = [1, 4, 8, 8]
    model = made(
        [
            helper.make_node("Conv", ["z", "w"], ["between_out"]),
            helper.make_node("Conv", ["between_out", "w"], ["last_out"]),
        ],
        {n: (TensorProto.FLOAT, size) for n in ("z", "between_out", "last_out")},
        {"w": np.full((4, 4, 1, 1), 0.1, np.float32)},
    )
    inputs = {"z": np.ones(size, np.float32)}
    for actual, expected in zip(run(half_body(model), inputs), run(model, inputs), strict=True):
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=1e-3)


def test_uint8_is_left_at_the_borders_only(bundle: Bundle) -> None:
    for name in NETWORKS:
        model = uint8_at_borders(fold_constants(onnx.load(bundle.path(name))), name)
        types = types_of(model)
        for node in model.graph.node:
            used = {types.get(n) for n in (*node.input, *node.output)}
            assert TensorProto.UINT8 not in used or node.op_type == "Cast", node.name


@pytest.mark.parametrize("op", ["Add", "Max"])
def test_arithmetic_in_uint8_is_refused_by_name(op: str) -> None:
    node = helper.make_node(op, ["a", "a"], ["sum_out"], name="wraps")
    model = made([node], {n: (TensorProto.UINT8, [4]) for n in ("a", "sum_out")}, {})
    with pytest.raises(BackendError, match=rf"'ikr\.onnx': {op} 'wraps' computes in uint8"):
        uint8_at_borders(model, "ikr.onnx")


def test_all_that_no_input_changes_is_computed_before() -> None:
    node = helper.make_node
    weight = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    model = made(
        [
            node("Cast", ["w16"], ["w"], to=TensorProto.FLOAT),
            node("MatMul", ["w", "w"], ["ww"]),
            node("Reshape", ["axis", "one"], ["axes"]),
            node("MatMul", ["a", "ww"], ["product"]),
            node("ReduceMax", ["product", "axes"], ["max_out"], keepdims=0),
            node("Identity", ["one"], ["fixed_out"]),
        ],
        {
            "a": (TensorProto.FLOAT, [2, 64]),
            "max_out": (TensorProto.FLOAT, [2]),
            "fixed_out": (TensorProto.INT64, [1]),
        },
        {"w16": weight.astype(np.float16), "axis": np.array(1), "one": np.array([1])},
    )
    folded = fold_constants(model)
    assert [n.op_type for n in folded.graph.node] == ["MatMul", "ReduceMax", "Identity"]
    constants = {t.name: numpy_helper.to_array(t) for t in folded.graph.initializer}
    assert constants["axes"].tolist() == [1] and constants["ww"].dtype == np.float32
    inputs = {"a": np.ones((2, 64), np.float32)}
    for actual, expected in zip(run(folded, inputs), run(model, inputs), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    half = half_body(folded)
    stored = {t.data_type for t in half.graph.initializer if t.dims == [64, 64]}
    assert stored == {TensorProto.FLOAT16}


def test_no_network_computes_on_the_gpu_what_is_always_the_same(bundle: Bundle) -> None:
    for name in NETWORKS:
        exact = uint8_at_borders(fold_constants(onnx.load(bundle.path(name))), name)
        for model in (exact, half_body(exact)):
            constants = {t.name for t in model.graph.initializer}
            left = [n for n in model.graph.node if constants.issuperset(filter(None, n.input))]
            assert not [f"{n.op_type} {n.name}" for n in left if set(n.output) - outputs(model)]


def outputs(model: Any) -> set[str]:
    return {v.name for v in model.graph.output}
