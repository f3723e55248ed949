# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train check-export`: checks that exported graphs match a preset's networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, ClassVar, Literal, cast

import numpy as np
import torch
import typer
from pydantic import ValidationError
from rich.table import Table
from torch import nn

from magicfuse_ros.backends import select
from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.bundle import NETWORKS, NetworkName
from magicfuse_ros.command_line import SeveralValues, output_console, unclipped
from magicfuse_ros.errors import BackendError
from magicfuse_training.commands import options
from magicfuse_training.console import say
from magicfuse_training.cost import gflop_per_call, parameters
from magicfuse_training.errors import ExportError
from magicfuse_training.export.bundle import (
    export_graph,
    make_half,
    network_spec,
    round_weights_to_half,
)
from magicfuse_training.export.compare import (
    HALF_DB,
    TOLERANCE,
    decibels,
    eager,
    relative_error,
    uncapped,
)
from magicfuse_training.export.graphs import example_inputs, graphs
from magicfuse_training.export.measure import Measure
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset

Precision = Literal["float32", "float16"]
LIBRARIES = ("onnxruntime", "openvino")


class SeveralNames(SeveralValues):
    """Accepts several values for --backend and --network."""

    several: ClassVar = {"--backend": r"\w+", "--network": r"\w+"}


@dataclass(frozen=True)
class Call:
    """One call of a network; `distance` compares its worst output with eager torch."""

    network: str
    library: str
    distance: float | None
    seconds: float
    gigabytes: float


def check_export_command(
    preset: str = "nano",
    height: Annotated[int | None, typer.Option(help="image rows; default: the preset's")] = None,
    width: Annotated[int | None, typer.Option(help="image columns; default: the preset's")] = None,
    precision: options.GraphPrecision = "float32",
    backend: Annotated[
        list[str] | None, typer.Option(metavar="NAME...", help=f"default: {' '.join(LIBRARIES)}")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME...", help="networks to check; default: all")
    ] = None,
) -> None:
    """Export a preset with random weights, and compare every graph with eager torch.

    Prints each network's worst output, the time of its first call, and how much that call grows the
    memory of the process: without the weights for torch, with them for a library.
    """
    names = network or list(NETWORKS)
    if unknown := [name for name in names if name not in NETWORKS]:
        raise typer.BadParameter(
            f"network is '{unknown[0]}'; expected one of {', '.join(NETWORKS)}"
        )
    config = load_preset(preset)
    given = {"height": height, "width": width}
    size = {name: value for name, value in given.items() if value is not None}
    try:
        config = Preset.model_validate(config.model_dump() | size)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"]) from error
    libraries: list[Backend] = []
    for name in backend or LIBRARIES:
        try:
            libraries.append(select(name))
        except BackendError as error:
            say(f"skipped {name}: {error}", "yellow")
    model = random_model(config)
    unit = "relative error" if precision == "float32" else "dB from float32"
    table = Table("network", "library", unit, "seconds", "GB", title=_title(model, precision))
    wrong: list[str] = []
    for name in names:
        for call in check_network(model, cast(NetworkName, name), precision, libraries):
            if call.distance is not None and not _fits(call.distance, precision):
                wrong.append(f"{call.network} in {call.library}")
            table.add_row(
                call.network,
                call.library,
                _in_words(call.distance, precision),
                f"{call.seconds:.2f}",
                f"{call.gigabytes:.2f}",
            )
    output_console().print(unclipped(table))
    if wrong:
        limit = f"{TOLERANCE:.0e}" if precision == "float32" else f"{HALF_DB:.0f} dB"
        raise ExportError(f"{', '.join(wrong)}: beyond the limit of {limit}")


@torch.no_grad()
def random_model(preset: Preset) -> MagicFuse:
    """Return a model in which every layer has an effect: no layer is left at zero."""
    torch.manual_seed(0)
    model = MagicFuse(preset).eval()
    for parameter in model.parameters():
        if not parameter.any():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 100
            nn.init.normal_(parameter, std=inputs**-0.5)
    round_weights_to_half(model)
    return model


def check_network(
    model: MagicFuse, name: NetworkName, precision: Precision, libraries: list[Backend]
) -> Iterator[Call]:
    """Export one graph of a model; yield a call in eager torch and one in every library.

    The inputs are random, as `example_inputs` draws them. For a half body, the mask is left out and
    tau is 1: see `uncapped`.
    """
    graph = graphs(model)[name]
    examples = example_inputs(model)
    inputs = {key: examples[key] for key in graph.inputs}
    if precision == "float16":
        inputs = uncapped(inputs)
    with Measure() as took:
        outputs = eager(graph, inputs)
    yield Call(name, f"torch {torch.__version__}", None, took.seconds, took.gigabytes)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        export_graph(graph, inputs, path)
        if precision == "float16":
            make_half(path)
        size, gflop = parameters(model.get_submodule(name)), gflop_per_call(model)[name]
        spec = network_spec(path, inputs, outputs, size, gflop)
        for library in libraries:
            with Measure() as took:
                loaded = library.load(path, spec)
                given = {
                    key: library.upload(np.ascontiguousarray(value.numpy()))
                    for key, value in inputs.items()
                }
                began = perf_counter()
                got = loaded(given)
                seconds = perf_counter() - began
            distances = [
                (relative_error if precision == "float32" else decibels)(
                    library.download(got[key]), want.numpy()
                )
                for key, want in outputs.items()
                if precision == "float32" or key != "mask"
            ]
            worst = np.max(distances) if precision == "float32" else np.min(distances)
            title = f"{library.name} {library.version}"
            yield Call(name, title, float(worst), seconds, took.gigabytes)
            del loaded, given, got


def _fits(distance: float, precision: Precision) -> bool:
    return distance <= TOLERANCE if precision == "float32" else distance >= HALF_DB


def _in_words(distance: float | None, precision: Precision) -> str:
    if distance is None:
        return ""
    return f"{distance:.1e}" if precision == "float32" else f"{distance:.1f}"


def _title(model: MagicFuse, precision: Precision) -> str:
    preset = model.preset
    return f"preset {preset.name}, {preset.height}x{preset.width}, {precision}, random weights"
