# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""ONNX-to-ONNX passes that prepare a bundle's graphs for TensorRT.

TensorRT accepts uint8 only at a graph's inputs and outputs, accepts axes and sizes only as
constants, and builds strongly typed networks: the ONNX sets the precision, not a flag. Every pass
returns a new model; none needs torch.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from magicfuse_ros.errors import BackendError

# Layers that run in float16; they do nearly all of a network's arithmetic.
_COMPUTE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# These overflow or lose their variance in float16; their results are small again.
_NORMS = frozenset(
    {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
)
# These keep the precision of their inputs.
_FOLLOW = frozenset({
    "Add", "AveragePool", "Clip", "Concat", "DepthToSpace", "Div", "Elu", "Expand", "Gather",
    "Gelu", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max",
    "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Relu", "Reshape", "Resize", "Sigmoid",
    "Slice", "Softmax", "SpaceToDepth", "Split", "Squeeze", "Sub", "Tanh", "Transpose",
    "Unsqueeze",
})  # fmt: skip
# These move numbers without changing them, so a cast may come before or after.
_LAYOUT = frozenset({
    "Concat", "DepthToSpace", "Flatten", "Gather", "Identity", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip


def fold_constants(model: Any) -> Any:
    """Return the model with everything that does not depend on an input folded to initialisers.

    TensorRT would compute some of it on the GPU, but it has no float32 product for SM 7.5, and
    releases 10.1 to 10.3 run the casts of stored weights with every frame. An output that does not
    depend on an input stays a node.

    Args:
        model: an `onnx.ModelProto`, in topological order; not changed.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    results = {v.name for v in graph.output}
    nodes = []
    for node in graph.node:
        computed = not all(name in known for name in node.input if name)
        if computed or results.intersection(node.output):
            nodes.append(node)
            continue
        feeds = {name: known[name] for name in node.input if name}
        values = ReferenceEvaluator(_alone(node, feeds, folded)).run(None, feeds)
        for name, value in zip(node.output, values, strict=True):
            known[name] = np.asarray(value)
    stored = {t.name for t in graph.initializer}
    taken = {name for node in nodes for name in node.input}
    for name in sorted((known.keys() - stored) & taken):
        graph.initializer.append(numpy_helper.from_array(known[name], name))
    return _with_nodes(folded, nodes)


def fold_norms(model: Any) -> Any:
    """Return the model with each batch normalisation folded into the convolution before it.

    TensorRT does this itself in float32. In a strongly typed network it cannot: a float32
    normalisation after a float16 convolution is a pass of its own through memory.

    Args:
        model: an `onnx.ModelProto` with folded constants; not changed.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(v.name for v in graph.output)
    nodes = []
    for node in graph.node:
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        constant = conv and all(n in known for n in (*conv.input[1:], *node.input[1:]) if n)
        if conv is None or not constant or conv.op_type != "Conv" or readers[node.input[0]] != 1:
            nodes.append(node)
            continue
        scale, shift, mean, variance = (known[n].astype(np.float64) for n in node.input[1:])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        gain = scale / np.sqrt(variance + epsilon)
        bias = known[conv.input[2]] if len(conv.input) > 2 and conv.input[2] else 0.0
        weight = known[conv.input[1]]
        for part, value in (
            ("weight", weight * gain.reshape(-1, *[1] * (weight.ndim - 1))),
            ("bias", (bias - mean) * gain + shift),
        ):
            name = f"{node.output[0]}.{part}"
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        conv.input[:] = [conv.input[0], *(f"{node.output[0]}.{p}" for p in ("weight", "bias"))]
        conv.output[0] = node.output[0]
    return _with_nodes(folded, nodes)


def uint8_at_borders(model: Any, network: str) -> Any:
    """Return the model with float32 inside and uint8 only at its inputs and outputs.

    Args:
        model: an `onnx.ModelProto`; not changed.
        network: the name for error messages.

    Raises:
        BackendError: if the graph computes in uint8, which float32 would not reproduce.
    """
    model, types = _copy_with_types(model)
    graph = model.graph
    borders = {v.name for v in graph.input if types[v.name] == TensorProto.UINT8}
    results = {v.name for v in graph.output if types[v.name] == TensorProto.UINT8}
    nodes = [_cast(name, f"{name}.float", TensorProto.FLOAT) for name in sorted(borders)]
    for node in graph.node:
        integers = [n for n in node.input if types.get(n) == TensorProto.UINT8]
        if node.op_type == "Cast":
            _retarget(node)
        elif integers and node.op_type not in _LAYOUT:
            raise BackendError(
                f"network '{network}': {node.op_type} '{node.name}' computes in uint8; TensorRT "
                "takes uint8 only at the inputs and outputs"
            )
        elif any(types.get(n) == TensorProto.UINT8 for n in node.output) and not integers:
            raise BackendError(
                f"network '{network}': {node.op_type} '{node.name}' makes uint8; only Cast may"
            )
        _rename(node.input, {n: f"{n}.float" for n in borders | results})
        _rename(node.output, {n: f"{n}.float" for n in results})
        nodes.append(node)
    nodes += [_cast(f"{name}.float", name, TensorProto.UINT8) for name in sorted(results)]
    return _with_nodes(model, nodes)


def half_body(model: Any) -> Any:
    """Return the model with its body in float16; inputs and outputs keep their types.

    Convolutions, matrix products and the nodes between them become float16. Normalisations stay
    float32, and so does everything before the first product or after the last one: the time step
    embedding, the DDIM arithmetic, the argmax over the classes, the scaling to 0..255. Weights are
    stored in float16.

    Args:
        model: an `onnx.ModelProto` with float32 arithmetic and folded constants, in topological
            order; not changed.
    """
    model, types = _copy_with_types(model)
    graph = model.graph
    constant = {t.name for t in graph.initializer}
    body = _leads_to_products(graph.node)
    half: set[str] = set()  # tensors that are float16 from here on
    nodes: list[Any] = []
    casts: dict[tuple[str, int], str] = {}

    def is_float(name: str) -> bool:
        return bool(types.get(name) == TensorProto.FLOAT)

    def as_type(name: str, to: int) -> str:
        if (name, to) not in casts:
            result = casts[name, to] = f"{name}.to{helper.tensor_dtype_to_np_dtype(to).name}"
            nodes.append(_cast(name, result, to))
        return casts[name, to]

    for index, node in enumerate(graph.node):
        floats = [n for n in node.input if is_float(n)]
        moving = [n for n in floats if n not in constant]
        settled = node.input[:1] if node.op_type == "CastLike" else node.input
        if all(n in constant for n in settled if n):
            constant.update(node.output)
        inside = bool(moving) and index in body
        follows = node.op_type in _FOLLOW and all(n in half for n in moving)
        if (moving and node.op_type in _COMPUTE) or (inside and follows):
            numbers = _numbers(node)
            for i, name in enumerate(node.input):
                if is_float(name) and name not in half and i in numbers:
                    node.input[i] = as_type(name, TensorProto.FLOAT16)
            half.update(n for n in node.output if is_float(n))
        else:
            for i, name in enumerate(node.input):
                if name in half:
                    node.input[i] = as_type(name, TensorProto.FLOAT)
        nodes.append(node)
        if inside and node.op_type in _NORMS:
            exact = f"{node.output[0]}.float32"
            nodes.append(_cast(exact, node.output[0], TensorProto.FLOAT16))
            half.add(node.output[0])
            node.output[0] = exact
    results = {v.name for v in graph.output} & half
    for node in nodes:
        for names in (node.input, node.output):
            _rename(names, {n: f"{n}.float16" for n in results})
    nodes += [_cast(f"{n}.float16", n, TensorProto.FLOAT) for n in sorted(results)]
    return fold_constants(_with_nodes(model, nodes))


def _alone(node: Any, feeds: dict[str, Any], model: Any) -> Any:
    """Return a model of one node, at the opset of `model`."""
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    return helper.make_model(graph, opset_imports=model.opset_import)


def _copy_with_types(model: Any) -> tuple[Any, dict[str, int]]:
    """Return a copy and the element type of every tensor in its graph."""
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    return model, types | {t.name: t.data_type for t in graph.initializer}


def _with_nodes(model: Any, nodes: list[Any]) -> Any:
    """Put `nodes` into the model and check it. Previously inferred shapes no longer hold.

    Constants that no node uses any more are removed, because onnxruntime warns about each.
    """
    del model.graph.value_info[:]
    taken = {name for node in nodes for name in node.input} | {v.name for v in model.graph.output}
    constants = model.graph.initializer
    for i in reversed(range(len(constants))):
        if constants[i].name not in taken:
            del constants[i]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def _leads_to_products(nodes: Any) -> set[int]:
    """Return the indices of the nodes whose result reaches a layer of `_COMPUTE`."""
    wanted: set[str] = set()
    found: set[int] = set()
    for index, node in reversed(list(enumerate(nodes))):
        reaches = any(name in wanted for name in node.output)
        if reaches:
            found.add(index)
        if reaches or node.op_type in _COMPUTE:
            wanted.update(node.input)
    return found


def _numbers(node: Any) -> range:
    """Return which inputs hold values; the other inputs of Resize hold its region and scales."""
    return range(1) if node.op_type == "Resize" else range(len(node.input))


def _cast(source: str, target: str, to: int) -> Any:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)


def _retarget(cast: Any) -> None:
    """Make a Cast to uint8 return float32; the cast at the output truncates the same way."""
    for attribute in cast.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.UINT8:
            attribute.i = TensorProto.FLOAT


def _rename(names: Any, new: dict[str, str]) -> None:
    for i, name in enumerate(names):
        names[i] = new.get(name, name)
