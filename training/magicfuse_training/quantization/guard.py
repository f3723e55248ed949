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
from magicfuse_training.quantization.networks import (
    folded,
    layers,
    multiply_adds,
    quantize,
    restored,
)
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
        float32_layers: names of the layers that stayed float32, those with the most noise first.
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
    measured as the only one in int8. These noises nearly add up. The layers that
    save the most noise, for their share of the arithmetic, return to float32.

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
    work, aim = multiply_adds(exact), minimum_db
    while result.decibels < minimum_db and len(result.float32_layers) < len(names):
        result = attempt(_to_float32(alone, work, aim))
        aim += max(minimum_db - result.decibels, 0.1)
    return result


def _to_float32(
    alone: dict[str, dict[str, float]], work: dict[str, int], minimum_db: float
) -> list[str]:
    """Choose the layers that return to float32, those with the most noise first.

    Args:
        alone: noise of each layer, by output.
        work: multiply-adds of each layer.
        minimum_db: least signal-to-noise ratio of every output.
    """

    def enough(chosen: list[str]) -> bool:
        rest = [noise for n, noise in alone.items() if n not in chosen]
        return not rest or _decibels({k: sum(r[k] for r in rest) for k in rest[0]}) >= minimum_db

    noise = {n: max(each.values()) for n, each in alone.items()}
    chosen: list[str] = []
    for name in sorted(alone, key=lambda n: -noise[n] / work[n]):
        if enough(chosen):
            break
        chosen.append(name)
    for name in sorted(chosen, key=lambda n: -work[n]):  # some may not be needed after all
        if enough(rest := [n for n in chosen if n != name]):
            chosen = rest
    return sorted(chosen, key=lambda n: -noise[n])


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
