# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Runs one stage on some data sets, for every command that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import yaml

from magicfuse_ros.output_files import check_folder
from magicfuse_training.atomic import write_atomically
from magicfuse_training.console import say
from magicfuse_training.data.classes import CLASSES, ids_of_people
from magicfuse_training.data.crop_draws import CropConfig
from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.device_crops import DeviceCrops
from magicfuse_training.data.mix import (
    CONDITIONS,
    NOTHING,
    Groups,
    Source,
    Trained,
    describe,
    joined,
    load_groups,
    load_held_out,
    shares,
    with_made_nights,
)
from magicfuse_training.data.scenes import Scene
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.stages.accelerator import MixedPrecision
from magicfuse_training.stages.checkpoint import read_checkpoint
from magicfuse_training.stages.run_folder import read_yaml, scene_rows, untrained
from magicfuse_training.stages.stage import Stage
from magicfuse_training.stages.trainer import Trainer

PICTURES = 2  # of each data set, on TensorBoard
NIGHTS = 0.4  # night scenes that are made for the device, as a share of the day scenes


@dataclass(frozen=True)
class Budget:
    """The budget of a stage, and how its batches are made."""

    minutes: float | None = None
    steps: int | None = None
    batch: int | None = None  # None: the stage's, or else the default of CropConfig
    accumulate: int = 1
    mixed_precision: MixedPrecision | None = None  # None: the fastest of this machine
    workers: int = 1
    device_crops: bool = False  # no workers: the training device makes the crops
    seed: int = 0
    crop: tuple[int, int] | None = None  # rows and columns; None: those of CropConfig


def train_stage(
    stage: Stage,
    model: MagicFuse,
    folder: Path,
    sources: Sequence[Source],
    budget: Budget,
    start: str,
    groups: Groups | None = None,
    before: Trained | None = None,
) -> MagicFuse:
    """Train a stage in `folder`; return the averaged model in evaluation mode.

    Args:
        stage: the stage.
        model: trained in place.
        folder: folder of the stage in the run; a killed run resumes from it.
        sources: the data sets.
        budget: minutes or steps, and the rest.
        start: origin of the model's weights, for the record.
        groups: the scenes of `sources`, if they are already loaded.
        before: what the model was trained on before; None: nothing, or not recorded.

    Raises:
        TrainingError: if the data has no scene that the stage learns from; also see `Trainer`.
        DataError: for an incomplete or damaged set.
    """
    check_folder(folder)  # fail now, not after all data is read
    if (checkpoint := folder / "last.pt").exists():
        read_checkpoint(checkpoint, {"ema"}, mapped=True)
    size = model.preset.height, model.preset.width
    trainer = Trainer(
        stage,
        model.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        folder,
        budget.minutes,
        steps=budget.steps,
        accumulate=budget.accumulate,
        mixed_precision=budget.mixed_precision,
    )
    names = [c.name for c in model.preset.classes]
    groups = groups or load_groups(sources, *size, names)
    crops = replace(
        crop_config(budget.batch or trainer.stage.batch or CropConfig.batch, names),
        more=tuple(model.preset.degradations.items()),
    )
    if budget.crop:
        crops = replace(crops, height=budget.crop[0], width=budget.crop[1])
    if crops.more and budget.device_crops:
        raise TrainingError(
            f"preset '{model.preset.name}' has degradations "
            f"{', '.join(model.preset.degradations)}, which only crops made on the CPU "
            "can have; leave out --device-crops"
        )
    accelerator = trainer.accelerator
    if writes := accelerator.is_main_process:
        processes = f"{accelerator.num_processes} process(es) on {accelerator.device.type}"
        precision = trainer.mixed_precision.replace("no", "float32")
        say(f"{stage.name} on {processes} in {precision}, from {start}")
    weights = group_weights(stage, groups)
    # Scenes that were made night as a whole do not tell how the camera saw them.
    if budget.device_crops and not stage.undegraded:
        groups, weights = with_made_nights(groups, weights, crops.night, NIGHTS, budget.seed)
    scenes = [group.scenes for group in groups]
    drawn = (
        DeviceCrops(scenes, weights, crops, budget.seed, accelerator.device, size, stage.undegraded)
        if budget.device_crops
        else Crops(scenes, weights, crops, budget.seed, stage.undegraded)
    )
    trained = trainer.run(
        drawn,
        budget.workers,
        validation=(
            _validation(load_held_out(sources, *size, PICTURES, names), crops, stage.undegraded)
            if writes
            else None
        ),
        data=scene_rows(
            (s.root, record)
            for s in sources
            for record in dataset(s.kind).records(s.root, s.training_split)
        ),
        start=start,
        opened=lambda: record_data(folder, joined(describe(sources), before or NOTHING)),
    )
    if writes and (warning := untrained(folder)):
        say(warning, "yellow")
    return trained


def crop_config(batch: int, names: Sequence[str]) -> CropConfig:
    """Return how crops are drawn for a preset's classes: some draws need the project's classes."""
    people = ids_of_people(names)
    if tuple(names) == CLASSES:
        return CropConfig(batch=batch, people=people)
    return CropConfig(batch=batch, people=people, rare=(), night=0.0, pasted=0.0)


def record_data(folder: Path, trained: Trained) -> None:
    """Record the training data of a stage, for the bundle's provenance."""
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(asdict(trained), sort_keys=False)
    write_atomically(text, folder / "data.yaml")


def recorded_data(folder: Path) -> Trained:
    """Return the training data of a stage.

    Raises:
        TrainingError: if the folder has no record of it.
    """
    try:
        return Trained(**read_yaml(folder / "data.yaml"))
    except TypeError as error:
        raise TrainingError(f"'{folder / 'data.yaml'}' is damaged: {error}") from error


def group_weights(stage: Stage, groups: Groups) -> list[float]:
    """Return how often the stage draws from each group.

    Raises:
        TrainingError: if the stage learns from none of them.
    """
    used = [
        i
        for i, g in enumerate(groups)
        if (g.paired or not stage.paired_only) and (g.labelled or not stage.labelled_only)
    ]
    weights = [0.0] * len(groups)
    some = shares([groups[i] for i in used], stage.condition_weights)
    for i, share in zip(used, some, strict=True):
        weights[i] = share
    if not sum(weights):
        wanted = " or ".join(
            n for n, w in zip(CONDITIONS, stage.condition_weights, strict=True) if w
        )
        counts = [sum(len(g.scenes) for g in groups if g.condition == i) for i in range(3)]
        there = ", ".join(f"{n} {name}" for n, name in zip(counts, CONDITIONS, strict=True))
        only = ", if they have a thermal image" if stage.paired_only else ""
        only += ", if they have a label" if stage.labelled_only else ""
        raise TrainingError(
            f"stage '{stage.name}' learns from scenes {wanted}{only}; the data holds {there}"
        )
    return weights


def _validation(scenes: list[Scene], config: CropConfig, undegraded: bool) -> Batch:
    """Return the same crop of every scene every time."""
    batches = [Crops([[scene]], [1.0], config, 0, undegraded)[range(1)] for scene in scenes]
    return {k: torch.cat([b[k] for b in batches]) for k in batches[0]}
