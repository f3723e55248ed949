# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Shows a run's progress: a bar, log.jsonl, and TensorBoard with pictures of a fixed batch."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch.utils.tensorboard import SummaryWriter

from magicfuse_ros.command_line import output_console
from magicfuse_training.data.crops import Batch
from magicfuse_training.model import MagicFuse
from magicfuse_training.stages.pictures import draw_pictures
from magicfuse_training.stages.randomness import seed_step
from magicfuse_training.stages.run_folder import append_line, drop_lines_after
from magicfuse_training.stages.stage import Stage


class Monitor:
    """The records of the process that writes; used as a context."""

    def __init__(self, folder: Path, stage: Stage, step: int, validation: Batch | None) -> None:
        assert stage.loss is not None
        self.loss = stage.loss
        self.validation = validation
        self.log_file = folder / "log.jsonl"
        drop_lines_after(self.log_file, step)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", table_column=Column(overflow="fold")),
            console=output_console(),
        )
        self.task = self.bar.add_task(stage.name, total=1.0, status="")

    def __enter__(self) -> Monitor:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.board.close()

    def show(
        self, progress: float, step: int, losses: dict[str, float], state: dict[str, float]
    ) -> None:
        """Update the bar; `progress` is 0 to 1."""
        terms = " ".join(f"{k} {v:.4f}" for k, v in losses.items())
        status = f"step {step}  {terms}  rate {state['rate']:.1e}"
        status += f"  {state['crops_per_second']:.1f} crops/s"
        if state["skipped"]:
            status += f"  {state['skipped']:.0f} skipped"
        self.bar.update(self.task, completed=progress, status=status)

    def log(
        self, step: int, seconds: float, losses: dict[str, float], state: dict[str, float]
    ) -> None:
        """Append a line to log.jsonl and the same values to the curves."""
        line = {"step": step, "seconds": round(seconds, 1), **losses, **state}
        append_line(self.log_file, line)
        self._curves(step, {f"loss/{k}": v for k, v in losses.items()})
        self._curves(step, {f"run/{k}": v for k, v in state.items()})

    @torch.no_grad()
    def examine(self, step: int, model: MagicFuse) -> None:
        """Draw the averaged model's output for the validation batch and log its losses."""
        if self.validation is None:
            return
        seed_step(0, 0, 0)  # the same noise every time
        with self.validation["degraded"].device:
            losses = self.loss(model, self.validation)
        self._curves(step, {f"validation/{k}": float(v) for k, v in losses.items()})
        seed_step(0, 0, 0)
        sheet = draw_pictures(model, self.validation)
        self.board.add_image("validation", sheet, step, dataformats="HWC")
        self.board.flush()

    def _curves(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
