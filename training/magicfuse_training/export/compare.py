# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures how far an exported graph is from its module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from magicfuse_training.errors import ExportError
from magicfuse_training.export.graphs import Graph

TOLERANCE = 1e-4  # relative to the largest value of an output
HALF_DB = 50.0

Array = npt.NDArray[Any]


def eager(graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs of eager torch, by name."""
    with torch.no_grad():
        values = graph(*inputs.values())
    values = (values,) if isinstance(values, Tensor) else values
    return dict(zip(graph.outputs, values, strict=True))


def relative_error(have: Array, want: Array) -> float:
    """Return the largest difference as a share of the largest expected value.

    For uint8, return the share of values that are off by more than 1 (rounding and ties of two
    classes may go either way).
    """
    difference = np.abs(have.astype(np.float64) - want.astype(np.float64))
    if want.dtype == np.uint8:
        return float((difference > 1).mean())
    return float(difference.max() / max(np.abs(want).max(), 1e-6))


def decibels(have: Array, want: Array) -> float:
    """Return the mean square of the expected values over that of the difference, in dB."""
    have, want = have.astype(np.float64), want.astype(np.float64)
    noise = float(((have - want) ** 2).mean())
    return float(10 * np.log10(max(float((want**2).mean()), 1e-12) / max(noise, 1e-30)))


def uncapped(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a graph's inputs with tau = 1, so that Eq. 11 has no effect.

    Eq. 11 depends on a choice between two close scores and therefore cannot be compared in a half
    body. The mask is left out there for the same reason.
    """
    return {k: torch.ones_like(v) if k == "tau" else v for k, v in inputs.items()}


def check_graph(path: Path, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Run an exported file and compare it with eager.

    Raises:
        ExportError: names the file, the output and its relative error.
    """
    for name, have, want in _run(path, inputs, expected):
        if not (error := relative_error(have, want)) <= TOLERANCE:  # this also rejects NaN
            raise ExportError(
                f"{path.name}: output '{name}' differs from eager by {error:.2e}; "
                f"the limit is {TOLERANCE:.0e}"
            )


def check_half_graph(path: Path, graph: Graph, inputs: dict[str, Tensor]) -> None:
    """Run an exported file of a half body and compare it with eager float32; see `uncapped`.

    Raises:
        ExportError: names the file, the output and its distance in dB.
    """
    inputs = uncapped(inputs)
    for name, have, want in _run(path, inputs, eager(graph, inputs)):
        if name != "mask" and not (distance := decibels(have, want)) >= HALF_DB:
            raise ExportError(
                f"{path.name}: output '{name}' is {distance:.1f} dB from float32; "
                f"expected at least {HALF_DB:.0f}"
            )


def _run(
    path: Path, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> Iterator[tuple[str, Array, Array]]:
    """Yield name, actual value and expected value of every output."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(list(expected), {k: v.numpy() for k, v in inputs.items()})
    for (name, want), have in zip(expected.items(), got, strict=True):
        yield name, have, want.numpy()
