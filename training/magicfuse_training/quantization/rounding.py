# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Rounds the weights of int8 layers so that the layers' outputs change least.

This is GPTQ (arXiv 2210.17323): the weights of an output are rounded one after the other, and the
remaining weights compensate for each error, as far as their inputs are correlated. The inputs of
convolutions on images mostly are, because neighbours are alike. The bias compensates for the
remaining error of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from magicfuse_training.arrays import F32
from magicfuse_training.quantization.calibration import Arrays
from magicfuse_training.quantization.networks import layer_inputs

LEVELS = 64  # of a weight on either side of zero: see `quantize`
_PLACES = 1024  # pixels sampled from each image of a layer
_DAMPING = 0.003  # of the inputs' mean power: errors are not moved to inputs without signal


def input_moments(model: Any, calls: Sequence[Arrays]) -> dict[str, Tensor]:
    """Return E[x x^T] for each convolution, by the node's name.

    x holds the n inputs of one output pixel, in the order of a weight's elements, and a 1 for the
    bias; the result is (n + 1, n + 1) float64. Grouped and dilated convolutions are left out.

    Args:
        model: float32, from `folded`.
        calls: inputs of the network, batches of one.
    """
    convolutions = [node for node in model.graph.node if _is_plain(node)]
    kernels = {t.name: tuple(t.dims)[2:] for t in model.graph.initializer}
    random = np.random.default_rng(0)
    moments: dict[str, Tensor] = {}
    for values in layer_inputs(model, convolutions, calls):
        for node in convolutions:
            x = _patches(node, kernels[node.input[1]], values[node.input[0]][0], random)
            moments[node.name] = moments.get(node.name, 0.0) + x.T @ x / (len(x) * len(calls))
    return moments


def _is_plain(node: Any) -> bool:
    found = _attributes(node)
    return (
        node.op_type == "Conv"
        and found.get("group", 1) == 1
        and set(found.get("dilations", [1])) == {1}
        and found.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def _attributes(node: Any) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _patches(node: Any, kernel: tuple[int, ...], image: F32, random: np.random.Generator) -> Tensor:
    """Return the inputs of a convolution on (C, H, W) at some places, a row for each, and a 1."""
    found = _attributes(node)
    top, left, bottom, right = found.get("pads", (0, 0, 0, 0))
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    down, across = found.get("strides", (1, 1))
    windows = windows[:, ::down, ::across]
    rows, columns = windows.shape[1:3]
    chosen = random.choice(rows * columns, min(rows * columns, _PLACES), replace=False)
    seen = windows[:, chosen // columns, chosen % columns].swapaxes(0, 1)
    x = np.column_stack([seen.reshape(len(chosen), -1), np.ones(len(chosen))])
    return torch.from_numpy(x.astype(np.float64))  # numpy's products hung next to OpenVINO


def round_weights(quantized: Any, folded: Any, moments: Mapping[str, Tensor]) -> Any:
    """Return a quantised network with new integers and biases for its int8 layers.

    Args:
        quantized: from `quantize`; not changed.
        folded: the float32 network that was quantised.
        moments: from `input_moments`; a layer without an entry stays as it is.
    """
    model = onnx.ModelProto.FromString(quantized.SerializeToString())
    constants = {t.name: t for t in model.graph.initializer}
    exact = {t.name: t for t in folded.graph.initializer}
    weights = {node.name: node.input[1] for node in folded.graph.node if node.name in moments}
    made_by = {name: node for node in model.graph.node for name in node.output}

    def value(name: str) -> npt.NDArray[Any]:
        return np.asarray(numpy_helper.to_array(constants[name]))

    def store(name: str, array: npt.NDArray[Any]) -> None:
        constants[name].CopyFrom(numpy_helper.from_array(array, name))

    for node in model.graph.node:
        dequantize = made_by.get(node.input[1]) if node.name in weights else None
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue  # this layer is float32
        weight = numpy_helper.to_array(exact[weights[node.name]])
        rows = torch.from_numpy(weight.reshape(len(weight), -1).astype(np.float64))
        scale = torch.from_numpy(value(dequantize.input[1]).astype(np.float64))
        bias = node.input[2] if len(node.input) > 2 else None
        moment = moments[node.name] if bias else moments[node.name][:-1, :-1]
        integers, shift = _rounded(rows, scale, moment)
        store(dequantize.input[0], integers.numpy().reshape(weight.shape))
        if bias:
            store(bias, (value(bias) + shift.numpy()[:, 0]).astype(np.float32))
    return model


def _rounded(weight: Tensor, scale: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 (outputs, n) for weights (outputs, n), and the correction for further inputs.

    scale: (outputs,); moment: moments of the n inputs and of inputs that are not rounded, here the
    bias's 1.
    """
    outputs, count = weight.shape
    power = moment.diagonal()[:count]
    order = torch.argsort(power, descending=True, stable=True)  # the strongest first
    order = torch.cat([order, torch.arange(count, len(moment))])  # unrounded inputs come last
    damped = moment.clone()
    damped.diagonal()[:count] += _DAMPING * power.mean() + 1e-12
    inverse = torch.linalg.inv(damped[order][:, order])
    # Row i divided by its diagonal is the share of an error of input i that each later input takes
    # over.
    upper = torch.linalg.cholesky(inverse, upper=True)
    rest = torch.cat([weight, weight.new_zeros(outputs, len(moment) - count)], dim=1)[:, order]
    integers = torch.empty((outputs, count), dtype=torch.int8)
    for i in range(count):
        nearest = torch.round(rest[:, i] / scale).clip(-LEVELS, LEVELS)
        integers[:, order[i]] = nearest.to(torch.int8)
        rest[:, i:] -= torch.outer((rest[:, i] - nearest * scale) / upper[i, i], upper[i, i:])
    return integers, rest[:, count:]
