# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Rounding of int8 weights changes a layer's output less than the nearest integers do."""

from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from magicfuse_training.arrays import F32
from magicfuse_training.quantization.networks import quantize
from magicfuse_training.quantization.rounding import LEVELS, input_moments, round_weights

pytestmark = pytest.mark.skipif(find_spec("nncf") is None, reason="quantisation needs nncf")


def layer(bias: bool = True, **attributes: Any) -> Any:
    """Return a network of one convolution of 4 channels, 24x32, to 6."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.3, (6, 4, 3, 3)).astype(np.float32)
    inputs = {"w": weight} | ({"b": rng.normal(0, 0.3, 6).astype(np.float32)} if bias else {})
    node = helper.make_node("Conv", ["in", *inputs], ["out"], name="conv", **attributes)
    given = helper.make_tensor_value_info("in", TensorProto.FLOAT, (1, 4, 24, 32))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, name) for name, array in inputs.items()]
    graph = helper.make_graph([node], "layer", [given], [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def images(count: int, seed: int) -> list[dict[str, F32]]:
    """Return inputs like features of images: smooth, not negative."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 4, 4, 5)).astype(np.float32)
    smooth = [[cv2.resize(channel, (32, 24)) for channel in image] for image in coarse]
    return [{"in": np.array(image, np.float32)[None]} for image in smooth]


def run(model: Any, calls: list[dict[str, F32]]) -> F32:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.array([session.run(None, call)[0] for call in calls], np.float32)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "pads": [0, 2, 1, 0], "strides": [1, 3]},
    ],
)
def test_moments_tell_the_power_of_what_a_layer_puts_out(attributes: dict[str, Any]) -> None:
    model, calls = layer(**attributes), images(3, seed=1)
    moment = input_moments(model, calls)["conv"].numpy()
    weight, bias = (numpy_helper.to_array(t) for t in model.graph.initializer)
    rows = np.column_stack([weight.reshape(6, -1), bias])
    expected = np.square(run(model, calls)[:, 0]).mean((0, 2, 3))
    np.testing.assert_allclose(np.diag(rows @ moment @ rows.T), expected, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_the_output_changes_less_than_with_the_nearest_integers(bias: bool) -> None:
    model = layer(bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    calls, others = images(16, seed=1), images(16, seed=2)
    nearest = quantize(model, calls)
    rounded = round_weights(nearest, model, input_moments(model, calls))
    expected = run(model, others)
    before, after = (run(m, others) - expected for m in (nearest, rounded))
    assert np.square(after).mean() < 0.3 * np.square(before).mean()
    assert np.abs(after.mean((0, 1, 3, 4))).max() < np.abs(before.mean((0, 1, 3, 4))).max()
    (integers,) = [numpy_helper.to_array(t) for t in rounded.graph.initializer if len(t.dims) == 4]
    assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() <= LEVELS


def test_other_layers_stay_as_they_are() -> None:
    dilated = layer(kernel_shape=[3, 3], dilations=[2, 2])
    calls = images(4, seed=1)
    assert input_moments(dilated, calls) == {}
    nearest = quantize(dilated, calls)
    assert round_weights(nearest, dilated, {}) == nearest

    model = layer(kernel_shape=[3, 3])
    exact = quantize(model, calls, float32=["conv"])
    assert round_weights(exact, model, input_moments(model, calls)) == exact
