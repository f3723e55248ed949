# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Keeps layers in float32 if int8 costs too much: per network, on frames outside of calibration."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from magicfuse_ros.backends import select
from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.backends.openvino import OpenVinoBackend
from magicfuse_ros.bundle import NetworkSpec
from magicfuse_training.quantization.calibration import Arrays
from magicfuse_training.quantization.networks import folded, layers, quantize, restored
from magicfuse_training.quantization.rounding import input_moments, round_weights
from magicfuse_training.quantization.smoothing import input_peaks, smoothed

Outputs = list[dict[str, Any]]
_NO_MAGNITUDE = "mask"  # depends on choices between close scores; `losses` checks it


@dataclass(frozen=True)
class QuantizedNetwork:
    """A quantised network.

    Attributes:
        model: ONNX.
        layers: names of the layers in int8.
        float32_layers: names of the layers that stayed float32, the costliest first.
        decibels: signal-to-noise ratio of its worst output against float32.
    """

    model: Any
    layers: list[str]
    float32_layers: list[str]
    decibels: float


def guarded(
    path: Path,
    spec: NetworkSpec,
    calibration: Sequence[Arrays],
    held_out: Sequence[Arrays],
    minimum_db: float,
) -> QuantizedNetwork:
    """Quantise a network so that each output stays within `minimum_db` of float32.

    If all layers together miss that limit, their input channels are evened out. Then each layer is
    measured as the only one in int8. These noises nearly add up, so the layers with the largest
    noise return to float32 until the rest meets the limit.

    Args:
        path: the float32 ONNX file.
        spec: the network's specification.
        calibration: inputs that set the ranges.
        held_out: other inputs, for measurement.
        minimum_db: least signal-to-noise ratio of every output.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)  # set_log_level changes all handlers
    exact = folded(path)
    names = layers(exact)
    measure = _measure(path, spec, held_out)

    def quantized(model: Any, float32: list[str]) -> QuantizedNetwork:
        moments = input_moments(model, calibration)
        model = round_weights(quantize(model, calibration, float32), model, moments)
        kept = [n for n in names if n not in float32]
        return QuantizedNetwork(model, kept, float32, _decibels(measure(model)))

    result = quantized(exact, [])
    if result.decibels >= minimum_db:
        return result
    peaks = input_peaks(exact, calibration)

    def attempt(float32: list[str]) -> QuantizedNetwork:
        return quantized(smoothed(exact, peaks, set(names) - set(float32)), float32)

    result = attempt([])
    even = smoothed(exact, peaks, names)
    alone = {n: measure(restored(result.model, even, set(names) - {n})) for n in names}
    costliest = sorted(names, key=lambda n: -max(alone[n].values()))
    while result.decibels < minimum_db and len(result.float32_layers) < len(names):
        float32 = _enough(costliest, alone, minimum_db, at_least=len(result.float32_layers) + 1)
        result = attempt(float32)
    return result


def _enough(
    costliest: list[str], alone: dict[str, dict[str, float]], minimum_db: float, at_least: int
) -> list[str]:
    """Return the fewest of the costliest layers to remove for the noise to be low enough."""
    for count in range(at_least, len(costliest)):
        rest = [alone[n] for n in costliest[count:]]
        if _decibels({k: sum(noise[k] for noise in rest) for k in rest[0]}) >= minimum_db:
            return costliest[:count]
    return costliest


def _decibels(noise: dict[str, float]) -> float:
    return float(-10 * np.log10(max(*noise.values(), 1e-12)))


def _measure(
    path: Path, spec: NetworkSpec, inputs: Sequence[Arrays]
) -> Callable[[Any], dict[str, float]]:
    """Return a function that measures a model's noise per output, as a share of signal power."""
    # An active cap (Eq. 11) jumps where two classes are equally likely, so it is left out.
    inputs = [{k: np.ones_like(v) if k == "tau" else v for k, v in x.items()} for x in inputs]
    backend = OpenVinoBackend(precision="int8")  # the library that will run it
    backend.cache.folder = None  # nobody runs these models again
    expected = _run(select("openvino"), path, spec, inputs)

    def measure(model: Any) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(model, file := Path(folder) / path.name)
            actual = _run(backend, file, spec.model_copy(update={"sha256": "0" * 64}), inputs)
        names = [t.name for t in spec.outputs if t.name != _NO_MAGNITUDE]
        return {name: _noise(name, actual, expected) for name in names}

    return measure


def _run(backend: Backend, path: Path, spec: NetworkSpec, inputs: Sequence[Arrays]) -> Outputs:
    network = backend.load(path, spec)
    results = (network({k: backend.upload(v) for k, v in x.items()}) for x in inputs)
    return [{k: backend.download(v) for k, v in result.items()} for result in results]


def _noise(name: str, actual: Outputs, expected: Outputs) -> float:
    pairs = [(a[name].astype(np.float64), e[name]) for a, e in zip(actual, expected, strict=True)]
    signal = sum(float(np.square(e, dtype=np.float64).sum()) for _, e in pairs)
    noise = sum(float(np.square(a - e).sum()) for a, e in pairs)
    return noise / max(signal, 1e-12)
