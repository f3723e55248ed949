# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Quantises one network, float32 ONNX to int8 ONNX, and selects its layers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from magicfuse_ros.backends.onnx_passes import fold_constants
from magicfuse_training.arrays import F32
from magicfuse_training.quantization.calibration import Arrays

LAYERS = ("Conv", "ConvTranspose")  # nearly all of the arithmetic; everything else stays float32
STATE = ("z", "z_seg", "t", "abar_t", "abar_next")  # inputs that are constants in a first step


def folded(path: Path) -> Any:
    """Return a network with folded constants and batch norms and a name for each node.

    onnxruntime folds them, as it would before it runs the network.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    model = onnx.load(path)
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        optimized = onnx.load(options.optimized_model_filepath)
    del optimized.opset_import[:]
    optimized.opset_import.extend(model.opset_import)
    optimized.ir_version = model.ir_version
    optimized = without_unused(fold_constants(optimized))
    for i, node in enumerate(optimized.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    return optimized


def layers(model: Any) -> list[str]:
    """Return the names of the nodes that can be quantised, in order.

    Layers that read only `STATE` are left out: they are small, and with a single step they are
    computed once.
    """
    fixed = {*STATE, *(t.name for t in model.graph.initializer)}
    names = []
    for node in model.graph.node:
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
        elif node.op_type in LAYERS:
            names.append(node.name)
    return names


def multiply_adds(model: Any) -> dict[str, int]:
    """Return the multiply-adds of each layer of a network whose shapes are fixed, by its name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    weights = {t.name: math.prod(t.dims) for t in graph.initializer}
    found = {}
    for node in (n for n in graph.node if n.op_type in LAYERS):
        # Each pixel of a convolution's output, or of a transposed one's input, uses every weight.
        pixels = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]][2:]
        found[node.name] = weights[node.input[1]] * math.prod(pixels)
    return found


def layer_inputs(
    model: Any, nodes: Sequence[Any], calls: Sequence[Arrays]
) -> Iterator[dict[str, F32]]:
    """Run a float32 network; yield for each call what some of its nodes read, by tensor name."""
    known = {v.name for v in (*model.graph.input, *model.graph.output)}
    hidden = sorted({node.input[0] for node in nodes} - known)
    shown = onnx.ModelProto.FromString(model.SerializeToString())
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in hidden)
    names = [v.name for v in shown.graph.output]
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for call in calls:
        yield dict(call) | dict(zip(names, session.run(names, dict(call)), strict=True))


def quantize(model: Any, calls: Sequence[Arrays], float32: Collection[str] = ()) -> Any:
    """Return a folded network with its layers in int8, except those in `float32`.

    Weights are int8 with a range of 7 bits, so that no 16-bit sum overflows on CPUs without VNNI;
    activations are uint8.

    Args:
        model: from `folded`; not changed.
        calls: inputs that set the ranges of the activations.
        float32: names of layers.
    """
    import nncf  # an extra that takes seconds
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    wanted = set(layers(model)) - set(float32)
    if not wanted:
        return model
    kept = sorted(n.name for n in model.graph.node if n.op_type in LAYERS and n.name not in wanted)
    others = sorted({n.op_type for n in model.graph.node} - set(LAYERS))
    quantized = nncf.quantize(
        onnx.ModelProto.FromString(model.SerializeToString()),
        nncf.Dataset(list(calls)),
        preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(calls),
        ignored_scope=nncf.IgnoredScope(names=kept, types=others, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE,
            disable_bias_correction=True,  # `round_weights` does it
            # The default, the mean over the frames, clips day frames because of the night frames.
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
        ),
    )
    return unsigned(quantized)


def unsigned(model: Any) -> Any:
    """Return the model with uint8 activations instead of int8 ones: the same numbers.

    OpenVINO 2026.4 gives wrong results for int8 activations with a zero point.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    renamed = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            tensor = constants[node.input[2]]
            zero_point = numpy_helper.to_array(tensor)
            if zero_point.dtype == np.int8:
                shifted = (zero_point.astype(np.int16) + 128).astype(np.uint8)
                name = f"{tensor.name}.unsigned"
                if tensor.name not in renamed:
                    graph.initializer.append(numpy_helper.from_array(shifted, name))
                renamed[tensor.name] = name
    used = {n.output[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    for node in graph.node:
        of_activation = node.op_type == "DequantizeLinear" and node.input[0] in used
        if node.op_type == "QuantizeLinear" or of_activation:
            node.input[2] = renamed.get(node.input[2], node.input[2])
    del graph.value_info[:]
    return without_unused(model)


def restored(quantized: Any, folded: Any, names: Collection[str]) -> Any:
    """Return a quantised network with some layers computed in float32 again."""
    model = onnx.ModelProto.FromString(quantized.SerializeToString())
    made_by = {name: node for node in model.graph.node for name in node.output}
    exact = {node.name: node for node in folded.graph.node}
    weights = {t.name: t for t in folded.graph.initializer}
    added: set[str] = set()
    for node in model.graph.node:
        if node.name in names:
            node.input[0] = made_by[made_by[node.input[0]].input[0]].input[0]  # before Q and DQ
            for i, name in enumerate(exact[node.name].input[1:], start=1):
                node.input[i] = f"{name}.exact"
                if name not in added:
                    model.graph.initializer.append(weights[name])
                    model.graph.initializer[-1].name = node.input[i]
                added.add(name)
    return without_unused(model)


def without_unused(model: Any) -> Any:
    """Remove nodes and constants that no output needs."""
    graph = model.graph
    needed = {v.name for v in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    constants = [t for t in graph.initializer if t.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
    return model
