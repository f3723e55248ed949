# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes a bundle: ONNX files with float16 storage, checked against eager, and `bundle.json`."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from magicfuse_ros.backends.onnx_passes import fold_constants, half_body
from magicfuse_ros.bench.machine import current_commit as current_commit
from magicfuse_ros.bundle import (
    Manifest,
    NetworkSpec,
    Provenance,
    TensorSpec,
    sha256,
    write_manifest,
)
from magicfuse_ros.output_files import make_folder
from magicfuse_training.cost import gflop_per_call, parameters
from magicfuse_training.export.compare import check_graph, check_half_graph, eager
from magicfuse_training.export.graphs import Graph, example_inputs, graphs
from magicfuse_training.model import MagicFuse

OPSET = 18
_DTYPES = {torch.float32: "float32", torch.uint8: "uint8"}
STORED_AS_HALF = 1024  # elements; biases, norms and constants are small and stay exact


def export_bundle(
    model: MagicFuse,
    folder: Path,
    provenance: Provenance,
    precision: Literal["float32", "float16"] = "float32",
) -> Manifest:
    """Export every graph at the preset's size; an existing bundle stays if one of them fails.

    Files of `float32` store large weights as float16 but compute in float32. Files of `float16`
    compute in float16, except for norms, DDIM steps, inputs and outputs: see `half_body`.

    Raises:
        ExportError: if an exported graph differs from eager float32 by more than `TOLERANCE` of the
            output's largest value, or if the signal-to-noise ratio of a `float16` output is below
            `HALF_DB`.
    """
    make_folder(folder)
    preset = model.preset
    model = model.cpu().eval()  # the files are checked on the CPU
    round_weights_to_half(model)
    costs = gflop_per_call(model)
    examples = example_inputs(model)
    specs: dict[str, NetworkSpec] = {}
    with TemporaryDirectory(dir=folder, prefix=".export.") as made:
        for name, graph in graphs(model).items():
            inputs = {k: examples[k] for k in graph.inputs}
            path = Path(made) / f"{name}.onnx"
            export_graph(graph, inputs, path)
            outputs = eager(graph, inputs)
            check_graph(path, inputs, outputs)
            if precision == "float16":
                make_half(path)
                check_half_graph(path, graph, inputs)
            size = parameters(model.get_submodule(name))
            specs[name] = network_spec(path, inputs, outputs, size, costs[name])
        manifest = Manifest(
            format_version=1,
            name=preset.name,
            preset=preset.name,
            height=preset.height,
            width=preset.width,
            latent_channels=preset.autoencoder.latent_channels,
            latent_scale=preset.autoencoder.scale,
            schedule=preset.schedule,
            step_grids={k: preset.timesteps(k) for k in preset.steps},
            default_steps=preset.default_steps,
            classes=preset.classes,
            tau=preset.tau,
            seed=preset.seed,
            thermal_uncertainty=preset.thermal_uncertainty,
            z_seg_start=preset.z_seg_start,
            precision=precision,
            networks=specs,
            provenance=provenance,
        )
        # Only now: a failed export leaves the bundle that is there.
        for path in sorted(Path(made).iterdir()):
            os.replace(path, folder / path.name)
    write_manifest(folder, manifest)
    return manifest


def export_graph(graph: Graph, inputs: dict[str, Tensor], path: Path) -> None:
    """Write one graph as ONNX."""
    with _tracing():
        program = torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            optimize=False,  # runtimes fold batch norms; unfolded, a bundle can be trained further
            verbose=False,
        )
    assert program is not None
    onnx.save(strip_traces(store_as_half(program.model_proto)), path)


@contextmanager
def _tracing() -> Iterator[None]:
    """Hide the exporter's internal messages from the terminal; errors are still raised.

    Tracing makes millions of objects, and Python would look through all of them thousands of times
    for cycles: a seventh of an export.
    """
    logger = logging.getLogger("torch.onnx")
    level, thresholds = logger.level, gc.get_threshold()
    logger.setLevel(logging.ERROR)
    gc.set_threshold(50_000, 20, 20)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        gc.set_threshold(*thresholds)


def make_half(path: Path) -> None:
    """Rewrite an exported file with a half body: see `half_body`."""
    onnx.save(half_body(fold_constants(onnx.load(path))), path)


@torch.no_grad()
def round_weights_to_half(model: MagicFuse) -> None:
    """Round the weights to float16 storage, so that eager and the files agree."""
    for p in model.parameters():
        if p.numel() >= STORED_AS_HALF:
            p.copy_(p.half().float())


def store_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large float32 constants as float16, followed by a Cast: half the file, same arithmetic.

    Runtimes fold the Cast when they load the file.
    """
    graph = model.graph
    casts: list[Any] = []
    for tensor in list(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < STORED_AS_HALF:
            continue
        half = numpy_helper.from_array(array.astype(np.float16), f"{tensor.name}.half")
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
        casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # shapes of initialisers that are now computed
    onnx.checker.check_model(model)
    return model


def strip_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's notes on every node: stack traces with this machine's paths."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
    return model


def network_spec(
    path: Path, inputs: dict[str, Tensor], outputs: dict[str, Tensor], parameters: int, gflop: float
) -> NetworkSpec:
    """Describe an exported file for the bundle's manifest."""
    return NetworkSpec(
        file=path.name,
        sha256=sha256(path),
        inputs=tuple(_spec(k, v) for k, v in inputs.items()),
        outputs=tuple(_spec(k, v) for k, v in outputs.items()),
        parameters=parameters,
        gflop=round(gflop, 3),
    )


def provenance(
    minutes: dict[str, float],
    commit: str,
    data: list[str],
    weights_license: str,
    recipe: str | None = None,
) -> Provenance:
    """Return the provenance of weights trained here, today."""
    return Provenance(
        data=data,
        weights_license=weights_license,
        commit=commit,
        created=datetime.now(timezone.utc).date().isoformat(),
        training_minutes=minutes,
        recipe=recipe,
    )


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(name=name, dtype=_DTYPES[tensor.dtype], shape=tuple(tensor.shape))
