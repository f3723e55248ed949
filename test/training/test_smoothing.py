# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Channels of different strength are evened out before int8; the layer's output is unchanged."""

from importlib.util import find_spec

import numpy as np
import pytest
from onnx import numpy_helper
from test_rounding import images, layer, run

from magicfuse_training.arrays import F32
from magicfuse_training.quantization.networks import quantize
from magicfuse_training.quantization.smoothing import input_peaks, smoothed

pytestmark = pytest.mark.skipif(find_spec("nncf") is None, reason="quantisation needs nncf")

STRENGTHS = np.array([1, 0.5, 0.1, 0.02], np.float32)[:, None, None]


def uneven(count: int, seed: int) -> list[dict[str, F32]]:
    """Return inputs whose last channels are weak, for a layer that depends on them."""
    return [{"in": call["in"] * STRENGTHS} for call in images(count, seed)]


def test_the_network_computes_the_same_and_int8_loses_less_of_weak_channels() -> None:
    model = layer(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    weight = model.graph.initializer[0]
    stronger = (numpy_helper.to_array(weight) / STRENGTHS).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(stronger, weight.name))
    calls, others = uneven(8, seed=1), uneven(8, seed=2)
    peaks = input_peaks(model, calls)
    even = smoothed(model, peaks, ["conv"])
    expected = run(model, others)
    np.testing.assert_allclose(run(even, others), expected, rtol=1e-4, atol=1e-4)
    before, after = (run(quantize(m, calls), others) - expected for m in (model, even))
    assert np.square(after).mean() < 0.2 * np.square(before).mean()


def test_peaks_are_those_of_all_calls() -> None:
    calls = uneven(3, seed=1)
    peak = input_peaks(layer(kernel_shape=[3, 3]), calls)["conv"]
    assert peak == pytest.approx(np.abs([call["in"][0] for call in calls]).max((0, 2, 3)))


def test_only_the_layers_named_are_changed() -> None:
    model, calls = layer(kernel_shape=[3, 3]), images(2, seed=1)
    assert smoothed(model, input_peaks(model, calls), []) == model
    assert smoothed(model, {}, ["conv"]) == model
