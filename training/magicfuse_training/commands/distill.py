# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train distill`: teaches a smaller ckg the output of a larger one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from magicfuse_training.commands import options
from magicfuse_training.commands.runs import load_averaged, newest_checkpoint
from magicfuse_training.data.mix import Source
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.distillation import distillation_loss, student_of
from magicfuse_training.stages.runner import Budget, recorded_data, train_stage
from magicfuse_training.stages.stage import Stage


def distill_command(
    data: options.Data,
    teacher: Annotated[Path, typer.Option(help="run folder of the larger model")],
    teacher_preset: Annotated[str, typer.Option(help="preset of the teacher")],
    preset: Annotated[
        str, typer.Option(help="preset of the student; only ckg, name and steps may differ")
    ],
    run: Annotated[Path, typer.Option(help="run folder to write for the student")],
    teacher_steps: Annotated[
        int | None, typer.Option(min=1, help="K of the teacher; its largest if omitted")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="time budget")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="budget in steps")] = None,
    batch: options.Batch = None,
    workers: options.Workers = 1,
    seed: int = 0,
) -> None:
    """Train the student's ckg on the teacher's output; copy everything else from the teacher."""
    sources = [Source.parse(text) for text in data]
    checkpoint = newest_checkpoint(teacher)
    if checkpoint is None:
        raise TrainingError(
            f"teacher '{teacher}' has no checkpoint; expected {teacher}/STAGE/last.pt"
        )
    large = MagicFuse(load_preset(teacher_preset))
    load_averaged(large, checkpoint)
    torch.manual_seed(seed)
    student = student_of(large, load_preset(preset))
    count = teacher_steps or max(large.preset.steps)
    if count > (most := large.preset.schedule.train_steps):
        raise TrainingError(f"teacher-steps is {count}; expected 1 to {most}")
    stage = Stage("distill", ("ckg",), distillation_loss(large, count), (0.2, 0.35, 0.45))
    budget = Budget(minutes, steps, batch, workers=workers, seed=seed)
    train_stage(
        stage, student, run / stage.name, sources, budget, f"{checkpoint}, K = {count}",
        before=recorded_data(checkpoint.parent),
    )  # fmt: skip
