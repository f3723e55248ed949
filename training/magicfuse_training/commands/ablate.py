# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train ablate`: measures what each part of the method contributes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.command_line import output_console
from magicfuse_ros.output_files import check_folder, write_text
from magicfuse_training.atomic import write_atomically
from magicfuse_training.commands import options
from magicfuse_training.commands.runs import load_averaged
from magicfuse_training.data.crop_draws import CropConfig
from magicfuse_training.data.mix import Trained, describe, development_sources, joined, load_groups
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.metrics.ablation import draw_plot, write_table
from magicfuse_training.metrics.ablation_scores import score_model, sweep_tau
from magicfuse_training.metrics.rows import CLIPPED, MAG_IMAGE, RESTORED
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.ablations import ABLATIONS, ablations_of, build
from magicfuse_training.stages.accelerator import processes
from magicfuse_training.stages.checkpoint import read_checkpoint
from magicfuse_training.stages.runner import Budget, recorded_data, train_stage
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.start import load_bundle

TAUS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def ablate_command(
    data: options.DevelopmentData,
    out: Annotated[Path, typer.Option(help="folder for the bundles, the table and the plot")],
    run: options.RunFolder = Path("runs/nano"),
    from_bundle: Annotated[
        Path | None, typer.Option(help="start from a bundle, not from the run's phase 1")
    ] = None,
    preset: str = "nano",
    minutes: Annotated[
        float, typer.Option(min=0, help="time budget of each stage of each model")
    ] = 10,
    steps: Annotated[
        int | None, typer.Option(min=0, help="step budget of each stage, in place of minutes")
    ] = None,
    batch: options.Batch = None,
    workers: options.Workers = 1,
    device_crops: options.DeviceCrops = False,
    every: options.Every = 1,
    only: Annotated[
        Literal["train", "score"] | None,
        typer.Option(help="only this half: train on a GPU, then score OUT elsewhere"),
    ] = None,
    seed: int = 0,
) -> None:
    """Train every ablated model from the same start and score all; score the full one over tau."""
    check_folder(out)  # fail now, not after hours
    if only != "score":
        start = from_bundle or run / "ckg" / "last.pt"
        if not start.exists():
            raise TrainingError(f"there is nothing to start from: '{start}' does not exist")
        budget = Budget(
            minutes if steps is None else None,
            steps,
            batch,
            workers=workers,
            device_crops=device_crops,
            seed=seed,
        )
        train_models(data, out, start, preset, budget)
    if only != "train" and processes().is_main_process:
        result = score_models(data, out, every)
        write_text(out / "ablation.json", json.dumps(result, indent=2) + "\n")
        write_table(result, out / "ablation.md")
        draw_plot(result, out / "ablation.png")
        table = (out / "ablation.md").read_text(encoding="utf-8")
        output_console().print(table, markup=False, soft_wrap=True)


def train_models(data: Path, out: Path, start: Path, name: str, budget: Budget) -> None:
    """Train every variant in `out`/models, export it as a bundle and record how it was trained.

    Args:
        data: folder of repacked camvid and msrs.
        out: output folder.
        start: a bundle, or a checkpoint from the end of phase 1.
        name: preset of the start.
        budget: budget of each stage of each model.
    """
    preset = load_preset(name)
    sources = development_sources(data)
    groups = load_groups(sources, preset.height, preset.width, [c.name for c in preset.classes])
    go_on = start.is_dir()  # a bundle has trained F and S; after phase 1 they are untrained
    models: dict[str, MagicFuse] = {}
    for variant, ablation in ablations_of(preset).items():
        torch.manual_seed(budget.seed)
        model = build(ablation, preset)
        _load(model, start)
        for stage in ablation.stages(go_on):
            folder = out / "models" / variant / stage.name
            model = train_stage(stage, model, folder, sources, budget, str(start), groups)
        models[variant] = model
    if not processes().is_main_process:
        return
    # Import only now: loaders fork, and the threads of inference libraries do not survive that.
    if go_on:
        before = Trained.of(Bundle.load(start).manifest.provenance)
    else:
        before = recorded_data(start.parent)
    trained, commit = joined(describe(sources), before), current_commit(Path(__file__).parent)
    steps: dict[str, dict[str, int]] = {}
    for variant, model in models.items():
        folder = out / "models" / variant
        states = {s.name: _checkpoint(folder / s.name) for s in ABLATIONS[variant].stages(go_on)}
        steps[variant] = {name: state["step"] for name, state in states.items()}
        spent = {name: round(state["elapsed"] / 60, 2) for name, state in states.items()}
        made = provenance(spent, commit, trained.data, trained.terms)
        export_bundle(model, folder / "bundle", made)
    record = {
        "preset": preset.name,
        "start": str(start),
        "minutes": budget.minutes,
        "batch": budget.batch or STAGES["mkf"].overridden_by(preset).batch or CropConfig.batch,
        "k": preset.default_steps,
        "steps": steps,
        "device": _device(),
    }
    write_atomically(json.dumps(record, indent=2) + "\n", out / "trained.json")


def score_models(data: Path, out: Path, every: int) -> dict[str, Any]:
    """Score the bundles that `train_models` left in `out` on every n-th frame; sweep tau.

    The table also shows two other images of the full model: the restored image alone, and the
    restored image with heat added by a formula.

    Raises:
        TrainingError: if `out` has no bundle, or one whose name is unknown.
    """
    try:
        trained = json.loads((out / "trained.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"'{out}' holds no trained models: {error}") from error
    rows: dict[str, Any] = {}
    for variant in trained["steps"]:
        if variant not in ABLATIONS:
            raise TrainingError(
                f"'{out}' holds a model '{variant}'; expected {', '.join(ABLATIONS)}: train again"
            )
        ablation = ABLATIONS[variant]
        bundle = Bundle.load(out / "models" / variant / "bundle")
        scores = score_model(bundle, data, every, masks=ablation.semantics)
        about = {"paper": ablation.paper, "lacks": ablation.lacks}
        rows[variant] = about | scores[MAG_IMAGE]
        if variant == "full":
            about = {"paper": "", "lacks": "F: an image of the full model"}
            rows |= {row: about | scores[row] for row in (RESTORED, CLIPPED)}
    full = Bundle.load(out / "models" / "full" / "bundle")
    return {**trained, "every": every, "models": rows, "tau": sweep_tau(full, data, every, TAUS)}


def _load(model: MagicFuse, start: Path) -> None:
    if start.is_file():
        load_averaged(model, start)
    else:
        load_bundle(model, start)


def _checkpoint(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "last.pt", {"step", "elapsed"})


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads"
