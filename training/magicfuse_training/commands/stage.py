# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train stage`: trains one stage of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from magicfuse_training.commands import options
from magicfuse_training.commands.runs import load_averaged, newest_checkpoint, recorded_preset
from magicfuse_training.console import say
from magicfuse_training.data.mix import Source, Trained
from magicfuse_training.errors import PresetError, TrainingError, did_you_mean
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.accelerator import MixedPrecision
from magicfuse_training.stages.run_folder import untrained
from magicfuse_training.stages.runner import Budget, recorded_data, train_stage
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.start import in_small_steps, load_bundle


def stage_command(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(STAGES)}")],
    data: options.Data,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="time budget; the learning rate is annealed over it")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="budget in steps, for results that repeat bit by bit")
    ] = None,
    run: options.RunFolder = Path("runs/nano"),
    preset: Annotated[
        str | None, typer.Option(help="preset; that of the stage before, else nano, if omitted")
    ] = None,
    from_bundle: Annotated[
        Path | None, typer.Option(help="start from a bundle's weights, not from the previous stage")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="crops per step, over all processes")
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(min=1, help="split a process's part of a batch in this many, to save memory"),
    ] = 1,
    mixed_precision: Annotated[
        MixedPrecision | None,
        typer.Option(help="number format of convolutions; the machine's fastest if omitted"),
    ] = None,
    workers: options.Workers = 1,
    device_crops: options.DeviceCrops = False,
    seed: int = 0,
) -> None:
    """Train one stage; resume a killed run of the same stage."""
    if name not in STAGES:
        raise typer.BadParameter(f"stage is '{name}'; expected one of {', '.join(STAGES)}")
    sources = [Source.parse(text) for text in data]
    newest = None if from_bundle else newest_checkpoint(run, before=name)
    recorded = recorded_preset(newest) if newest and not preset else None
    config = recorded or load_preset(preset or "nano")
    check_training(config, preset or config.name)
    check_stage(config, name)
    torch.manual_seed(seed)
    model = MagicFuse(config)
    start, stage, before = "random weights", STAGES[name], None
    if from_bundle:
        before = Trained.of(load_bundle(model, from_bundle).manifest.provenance)
        start, stage = str(from_bundle), in_small_steps(stage)
    elif newest:
        load_averaged(model, newest)
        start, before = str(newest), recorded_data(newest.parent)
        if warning := untrained(newest.parent):
            say(warning, "yellow")
    budget = Budget(minutes, steps, batch, accumulate, mixed_precision, workers, device_crops, seed)
    train_stage(stage, model, run / name, sources, budget, start, before=before)


def check_training(preset: Preset, name: str) -> None:
    """Check that a preset overrides only stages that exist.

    Raises:
        PresetError: names the first unknown stage.
    """
    for key in preset.training:
        if key not in STAGES:
            raise PresetError(
                f"preset '{name}': training.{key} is unknown{did_you_mean(key, STAGES)}"
            )


def check_stage(preset: Preset, name: str) -> None:
    """Check that a preset has something for a stage to train.

    Raises:
        TrainingError: for `one_step` if the preset has no K = 1; for `one_step`, `few_step` and
            `masks` if it has no losses for them.
    """
    if name in ("one_step", "few_step", "masks") and preset.losses.output is None:
        raise TrainingError(
            f"stage '{name}' trains the sampler's output; preset '{preset.name}' has no "
            "losses.output for it"
        )
    if name == "one_step" and 1 not in preset.steps:
        raise TrainingError(
            f"stage 'one_step' trains K = 1; preset '{preset.name}' has K = {preset.steps}"
        )
