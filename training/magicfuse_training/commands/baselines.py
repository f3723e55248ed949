# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train baselines`: compares the method with plain networks of the same cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.command_line import output_console
from magicfuse_ros.output_files import check_folder, write_text
from magicfuse_training.commands import options
from magicfuse_training.commands.runs import minutes_of
from magicfuse_training.data.crop_draws import CropConfig
from magicfuse_training.data.mix import describe, development_sources, load_groups
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.metrics.baseline_scores import as_table, score_baseline, score_filters
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.accelerator import processes
from magicfuse_training.stages.baselines import BASELINES
from magicfuse_training.stages.runner import Budget, train_stage


def baselines_command(
    data: options.DevelopmentData,
    out: Annotated[Path, typer.Option(help="folder for the runs, the bundles and the table")],
    steps: Annotated[int, typer.Option(min=0, help="step budget of each model")] = 300,
    batch: Annotated[int, typer.Option(min=1, help="crops per step")] = CropConfig.batch,
    workers: options.Workers = 1,
    device_crops: options.DeviceCrops = False,
    every: options.Every = 1,
    seed: int = 0,
) -> None:
    """Train preset nano and plain networks of its cost alike, from random weights; score all.

    The same command resumes where it was stopped.
    """
    check_folder(out)  # fail now, not after hours
    preset = load_preset("nano")
    budget = Budget(steps=steps, batch=batch, workers=workers, device_crops=device_crops, seed=seed)
    models = train_models(data, out, preset, budget)
    if not processes().is_main_process:
        return
    rows: dict[str, Any] = score_filters(data, preset, every)
    trained, commit = describe(development_sources(data)), current_commit(Path(__file__).parent)
    for name, model in models.items():
        folder = out / name / "bundle"
        made = provenance(minutes_of(out / name), commit, trained.data, trained.terms)
        export_bundle(model, folder, made)
        rows |= score_baseline(name, model, Bundle.load(folder), data, every, preset.tau)
    result = {"steps": steps, "batch": batch, "seed": seed, "every": every, "models": rows}
    write_text(out / "baselines.json", json.dumps(result, indent=2) + "\n")
    table = as_table(result)
    write_text(out / "baselines.md", table)
    output_console().print(table, markup=False, soft_wrap=True)


def train_models(data: Path, out: Path, preset: Preset, budget: Budget) -> dict[str, MagicFuse]:
    """Train every model in `out`/NAME on the same crops; return them by name."""
    sources = development_sources(data)
    groups = load_groups(sources, preset.height, preset.width, [c.name for c in preset.classes])
    models: dict[str, MagicFuse] = {}
    for name, baseline in BASELINES.items():
        torch.manual_seed(budget.seed)
        model, stage = baseline.build(preset), baseline.stage()
        folder = out / name / stage.name
        models[name] = train_stage(stage, model, folder, sources, budget, "random weights", groups)
    return models
