# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Adds int8 graphs to a bundle: calibrate, quantise with a guard, measure, and only then write."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnx

from magicfuse_ros.bundle import (
    MANIFEST,
    NETWORKS,
    Bundle,
    Manifest,
    NetworkName,
    NetworkSpec,
    Quantization,
    QuantizedGraph,
    sha256,
    write_manifest,
)
from magicfuse_training.export.bundle import store_as_half, strip_traces
from magicfuse_training.quantization.calibration import record, training_frames
from magicfuse_training.quantization.guard import QuantizedNetwork, guarded
from magicfuse_training.quantization.losses import Losses, as_json, check_losses, measure_losses

FRAMES = 8  # from each of the four conditions, for the ranges
HELD_OUT = 2  # from each, for the guard

Told = Callable[[NetworkName, QuantizedNetwork], None]


def quantize_bundle(bundle: Bundle, data: Path, out: Path, minimum_db: float, tell: Told) -> Losses:
    """Write a bundle with int8 graphs beside its float32 ones; `out` may be its own folder.

    Args:
        bundle: a bundle of float32 graphs.
        data: folder of repacked `camvid` and `msrs`: training frames for the ranges, CamVid val and
            MSRS dev for the losses.
        out: output folder, created if missing.
        minimum_db: see `guarded`.
        tell: called with each network once it is quantised.

    Returns:
        The costs of int8, all within the limits.

    Raises:
        ExportError: if a limit is exceeded. Nothing is written in that case.
        DataError: if frames are missing.
    """
    names, frames = zip(*training_frames(data, 0, FRAMES), strict=True)
    calibration = record(bundle, frames)
    others = [frame for _, frame in training_frames(data, 1, HELD_OUT)]
    held_out = record(bundle, others)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".int8.", dir=out) as folder:
        made = Path(folder)
        specs: dict[NetworkName, NetworkSpec] = {}
        for name in NETWORKS:
            path, spec = bundle.path(name), bundle.manifest.networks[name]
            shutil.copy(path, made)
            result = guarded(path, spec, calibration.pop(name), held_out.pop(name), minimum_db)
            tell(name, result)
            specs[name] = spec.model_copy(
                update={"int8": _save(result, made / f"{path.stem}.int8.onnx")}
            )
        manifest = bundle.manifest.model_copy(update={"networks": specs})
        losses = measure_losses(Bundle(made, manifest), data)
        check_losses(losses, minimum_db)
        quantization = Quantization(
            tool=f"nncf {version('nncf')}", calibration=list(names), losses=as_json(losses)
        )
        _publish(made, bundle.root, out, manifest.model_copy(update={"quantization": quantization}))
    return losses


def _save(result: QuantizedNetwork, path: Path) -> QuantizedGraph:
    """Write a quantised network; layers that stayed float32 are stored as float16."""
    onnx.save(strip_traces(store_as_half(result.model)), path)
    return QuantizedGraph(
        file=path.name,
        sha256=sha256(path),
        layers=len(result.layers),
        float32_layers=tuple(result.float32_layers),
    )


def _publish(made: Path, old: Path, out: Path, manifest: Manifest) -> None:
    """Move the files to their place, the manifest last; copy all other files too."""
    if os.path.realpath(out) != os.path.realpath(old):
        for path in old.iterdir():
            if path.is_file() and path.name != MANIFEST:
                shutil.copy(path, out)
    for path in made.iterdir():
        os.replace(path, out / path.name)
    write_manifest(out, manifest)
