# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train make`: makes a bundle from a recipe in one command.

RUN/recipe.yaml   the recipe that the run started with, with scaled budgets
RUN/start         the bundle to start from, as of the recipe's commit
RUN/STAGE         a stage: see `stages/run_folder.py`
RUN/bundle        the float32 bundle, if the recipe also asks for int8

If it is killed at any point and run again, it resumes: finished stages are not trained again, and
the bundle folder is written last.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml

from magicfuse_ros.bundle import Bundle, Provenance, sha256
from magicfuse_ros.output_files import check_folder
from magicfuse_training.atomic import write_atomically
from magicfuse_training.commands import options
from magicfuse_training.commands.quantize import check_frames, quantize_command
from magicfuse_training.commands.runs import load_averaged, minutes_of, tell_replaced
from magicfuse_training.commands.stage import check_stage, check_training
from magicfuse_training.console import say
from magicfuse_training.data.mix import (
    NOTHING,
    Groups,
    Source,
    Trained,
    describe,
    joined,
    load_groups,
)
from magicfuse_training.errors import ExportError, TrainingError
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.model import MagicFuse
from magicfuse_training.optimizer import StageOverrides
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.recipe import Recipe, StageRun, load_recipe
from magicfuse_training.stages.accelerator import processes
from magicfuse_training.stages.average import weighted_mean
from magicfuse_training.stages.checkpoint import averaged_weights
from magicfuse_training.stages.run_folder import check_same, flat, read_yaml, untrained
from magicfuse_training.stages.runner import Budget, train_stage
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.start import (
    in_small_steps,
    load_bundle,
    weights_of_bundle,
    write_bundle_of_commit,
)
from magicfuse_training.stages.temperature import check_fit, fit_temperature


def make_command(
    recipe: Annotated[Path, typer.Argument(help="YAML file, like those in training/recipes/")],
    data: Annotated[Path, typer.Option(help="folder that contains the recipe's data sets")],
    out: options.MadeBundle,
    run: options.RunFolder = Path("runs/nano"),
    scale: Annotated[
        float, typer.Option(min=0, help="factor on all budgets, such as 0.1 for a rehearsal")
    ] = 1,
    workers: options.Workers = 1,
    device_crops: options.DeviceCrops = False,
) -> None:
    """Train all stages of a recipe and export the bundle; resume if it was killed.

    Several processes all train, and only the first one exports.
    """
    plan = load_recipe(recipe).scaled(scale)
    scaled = "" if scale == 1 else f", budgets x {scale:g}"
    made_by = f"{recipe.name}, SHA-256 {sha256(recipe)}{scaled}"  # now: it may change meanwhile
    beside = plan.preset.endswith((".yaml", ".yml"))
    name = str(recipe.parent / os.path.expanduser(plan.preset)) if beside else plan.preset
    preset = load_preset(name)
    check_training(preset, name)
    for part in plan.stages:
        check_stage(preset, part.stage)
        _overridden(preset, part)  # fail now, not after the stages before it
    if plan.int8 and not find_spec("nncf"):
        raise ExportError("int8 needs nncf: pip install './training[quantize]'")
    sources = [_source(text, data) for text in plan.data]
    if plan.int8:
        check_frames(data)  # fail now, not after hours
    check_folder(out)
    ours = processes()
    if ours.is_main_process:
        _open(run, plan)
        if plan.start:
            inside = recipe.absolute().parent
            write_bundle_of_commit(plan.start.commit, plan.start.bundle, inside, run / "start")
            # Fail now, not after all data is read.
            load_bundle(MagicFuse(preset), run / "start", plan.start.renew, plan.start.leave_out)
    ours.wait_for_everyone()
    groups = _train(plan, preset, sources, run, Budget(workers=workers, device_crops=device_crops))
    if not processes().is_main_process:
        return

    model = MagicFuse(preset)
    if plan.average:
        states = [
            weights_of_bundle(preset, run / name, plan.start.renew, plan.start.leave_out)
            if plan.start and name == "start"
            else averaged_weights(run / name / "last.pt")
            for name in plan.average.stages
        ]
        average = plan.average
        model.load_state_dict(weighted_mean(states, average.weights, average.networks))
    else:
        load_averaged(model, run / plan.stages[-1].folder / "last.pt")
    if plan.temperature:
        fitted = fit_temperature(model.eval(), groups)
        say(f"temperature of the confidence: {fitted:.2f}")
    tell_replaced(out)
    made = _provenance(plan, sources, run, made_by)
    if plan.int8:
        export_bundle(model, run / "bundle", made)
        quantize_command(run / "bundle", data, out, plan.int8.minimum_db)
    else:
        export_bundle(model, out, made)
    if short := [part.folder for part in plan.stages if untrained(run / part.folder)]:
        line = f"the bundle is untrained: {', '.join(short)} ended in the warm-up, see above"
        say(line, "yellow")
    line = f"try: magicfuse run IMAGE --bundle {out} --out result"
    say(line)


def _open(run: Path, plan: Recipe) -> None:
    """Record the settings of a new run, or check those of a resumed one. Stages may be added.

    Raises:
        TrainingError: names the first key that differs, and both values.
    """
    path = run / "recipe.yaml"
    ours = plan.model_dump(mode="json", include={"preset", "start", "data", "stages"})
    if any(run.glob("*/last.pt")):
        if not path.is_file():
            raise TrainingError(f"'{run}' holds stages of no recipe; use another --run")
        old = dict(flat(read_yaml(path)))
        check_same(run, old, dict(flat(ours)), old)
    elif (run / "start").exists() and not path.is_file():
        raise TrainingError(f"'{run / 'start'}' is not of a recipe's run; use another --run")
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(yaml.safe_dump(ours, sort_keys=False), path)


def _train(
    plan: Recipe, preset: Preset, sources: list[Source], run: Path, common: Budget
) -> Groups:
    """Train every stage in its own folder, each from the previous one; return the scenes.

    Every stage of a recipe that starts from a bundle trains networks that are already trained. It
    therefore takes small steps and keeps their batch statistics.
    """
    groups = load_groups(sources, preset.height, preset.width, [c.name for c in preset.classes])
    if plan.temperature:
        check_fit(preset, groups)  # fail now, not after hours
    start, before = "random weights", _before(plan, run)
    for i, part in enumerate(plan.stages):
        stage = in_small_steps(STAGES[part.stage]) if plan.start else STAGES[part.stage]
        torch.manual_seed(part.seed)
        model = MagicFuse(_overridden(preset, part))
        if i:
            start = str(run / plan.stages[i - 1].folder / "last.pt")
            load_averaged(model, Path(start))
        elif plan.start:
            start = f"{plan.start.bundle} of commit {plan.start.commit}"
            load_bundle(model, run / "start", plan.start.renew, plan.start.leave_out)
        budget = replace(
            common,
            minutes=part.minutes,
            steps=part.steps,
            batch=part.batch,
            seed=part.seed,
            crop=part.crop,
        )
        train_stage(stage, model, run / part.folder, sources, budget, start, groups, before)
    return groups


def _before(plan: Recipe, run: Path) -> Trained:
    """Return what the weights that a recipe starts from were trained on."""
    return Trained.of(Bundle.load(run / "start").manifest.provenance) if plan.start else NOTHING


def _source(text: str, data: Path) -> Source:
    """Read "KIND:FOLDER", with the folder relative to `data`."""
    kind, colon, folder = text.partition(":")
    folder = os.path.expanduser(folder)
    return Source.parse(f"{kind}:{data / folder}" if colon and folder else text)


def _overridden(preset: Preset, part: StageRun) -> Preset:
    """Return the preset with what the recipe replaces for a stage.

    Raises:
        TrainingError: if the preset's classes do not have these weights.
    """
    if (weights := part.class_weights_at_night) is not None:
        name = f"class_weights_at_night of stage {part.folder}"
        preset.check_weights(name, weights, TrainingError)
        losses = preset.losses.model_copy(update={"class_weights_at_night": weights})
        preset = preset.model_copy(update={"losses": losses})
    if part.optimizer is not None:
        old = preset.training.get(part.stage, StageOverrides())
        new = old.model_copy(update={"optimizer": part.optimizer})
        preset = preset.model_copy(update={"training": {**preset.training, part.stage: new}})
    return preset


def _provenance(plan: Recipe, sources: list[Source], run: Path, recipe: str) -> Provenance:
    """Return where the weights come from, including what their start was trained on."""
    trained = joined(describe(sources), _before(plan, run))
    minutes = minutes_of(run, [part.folder for part in plan.stages])
    commit = current_commit(Path(__file__).parent)
    return provenance(minutes, commit, trained.data, trained.terms, recipe)
