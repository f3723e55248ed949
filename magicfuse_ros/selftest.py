# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Compares a backend with the CPU: every network on its own, then the whole frame.

A GPU engine may load and run and still give wrong results, because of a driver, a precision or an
untested library release. The reference is the same bundle in float32 on a CPU library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from magicfuse_ros import backends
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.interface import Backend, Network, Tensor
from magicfuse_ros.bench.scene import street
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName, NetworkSpec
from magicfuse_ros.errors import BackendError
from magicfuse_ros.fuser import Fuser

REFERENCES = ("openvino", "onnxruntime")
WARM_UP = 3
CALLS = 20
FRAMES = 20

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class SelftestLimits:
    """The requirements for a precision.

    Attributes:
        db: lowest allowed signal-to-noise ratio of an output; the signal is the reference's range.
        labels: lowest allowed fraction, 0 to 1, of pixels with the reference's class.
    """

    db: float
    labels: float


# nano on a CPU reaches 94 dB in float32, 62 with a float16 body and 45 in int8; a wrong layer gives
# less than 30.
LIMITS: dict[Precision, SelftestLimits] = {
    "fp32": SelftestLimits(70, 0.999),
    "fp16": SelftestLimits(45, 0.99),
    "int8": SelftestLimits(30, 0.97),
}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: a network, or "frame".
        db: decibels of the worst output; infinite if all are equal.
        worst: name of that output.
        labels: fraction of pixels with the reference's class; None without classes.
        ms: median time of a call.
        passed: whether `db` and `labels` are within the limits.
    """

    what: str
    db: float
    worst: str
    labels: float | None
    ms: float
    passed: bool


def reference_for(name: str) -> Backend:
    """Return a float32 CPU backend of another library, as the reference for backend `name`.

    Raises:
        BackendError: if none is installed.
    """
    reasons = []
    for candidate in REFERENCES:
        if candidate == name:
            continue
        try:
            return backends.select(candidate, precision="fp32")
        except BackendError as error:
            reasons.append(str(error))
    raise BackendError(f"there is nothing to compare {name} with: {'; '.join(reasons)}")


def check(bundle: Bundle, backend: Backend, reference: Backend) -> list[Row]:
    """Compare all networks and then a whole frame on a drawn street.

    Raises:
        MagicFuseError: if a network cannot be loaded or run.
    """
    limits = LIMITS[backend.precision]
    watched = _Watched(bundle, reference)
    image = street(bundle.manifest.height, bundle.manifest.width)
    expected = Fuser(bundle, watched)(image)
    graphs = bundle.quantized() if backend.precision == "int8" else bundle
    rows = []
    for name in NETWORKS:
        inputs, outputs = watched.calls[name]
        network = backend.load(graphs.path(name), graphs.manifest.networks[name])
        tensors = {key: backend.upload(value) for key, value in inputs.items()}
        actual = {k: backend.download(v) for k, v in network(tensors).items()}
        rows.append(_row(name, actual, outputs, _call_ms(backend, network, tensors), limits))
    fuser = Fuser(bundle, backend)
    fuser(image)
    frames = [fuser(image) for _ in range(FRAMES)]
    names = fuser.outputs
    found, wanted = ({str(n): getattr(f, n) for n in names} for f in (frames[-1], expected))
    ms = median(frame.stages_ms["total"] for frame in frames)
    return [*rows, _row("frame", found, wanted, ms, limits)]


class _Watched:
    """A backend that keeps the inputs and outputs of each network's first call."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.calls: dict[NetworkName, tuple[Arrays, Arrays]] = {}
        self._backend = backend
        self._names = {bundle.manifest.networks[name].file: name for name in NETWORKS}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def join(self, *given: object) -> None:
        """Join nothing, so that each network can be watched."""

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Load a network, see `Backend.load`."""
        network, name = self._backend.load(path, spec), self._names[spec.file]

        def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            outputs = network(inputs)
            if name not in self.calls:
                self.calls[name] = tuple(
                    {k: np.array(self._backend.download(v)) for k, v in tensors.items()}
                    for tensors in (inputs, outputs)
                )  # type: ignore[assignment]
            return outputs

        return call


def _call_ms(backend: Backend, network: Network, tensors: Mapping[str, Tensor]) -> float:
    """Return the time of one call, averaged over many calls, because the device may queue them."""
    for _ in range(WARM_UP):
        outputs = network(tensors)
    start = backend.stamp()
    for _ in range(CALLS):
        outputs = network(tensors)
    end = backend.stamp()
    backend.download(next(iter(outputs.values())))  # waits
    return backend.elapsed_ms(start, end) / CALLS


def _row(what: str, actual: Arrays, expected: Arrays, ms: float, limits: SelftestLimits) -> Row:
    numbers = {name: decibels(actual[name], expected[name]) for name in expected if name != "mask"}
    worst = min(numbers, key=numbers.__getitem__)
    labels = None
    if "mask" in expected:
        labels = float((actual["mask"] == expected["mask"]).mean())
    enough = numbers[worst] >= limits.db and (labels is None or labels >= limits.labels)
    return Row(what, numbers[worst], worst, labels, ms, enough)


def decibels(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return 20 log10 of the reference's range over the RMS difference; for uint8 the range is 255.

    Return minus infinity if a value is not finite, and infinity if all values are equal.
    """
    wanted = expected.astype(np.float64)
    difference = actual.astype(np.float64) - wanted
    if not np.isfinite(difference).all():
        return float("-inf")
    rms = float(np.sqrt(np.square(difference).mean()))
    if rms == 0:
        return float("inf")
    span = 255.0 if expected.dtype == np.uint8 else float(wanted.max() - wanted.min())
    return float(20 * np.log10(span / rms)) if span else float("-inf")
