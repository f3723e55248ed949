# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The training loop that all stages share.

One process, on the GPU if there is one:
    magicfuse-train stage ikr --data KIND:ROOT --minutes 10
The same on four GPUs, with the same total batch (accelerate's manual describes several machines;
they must share one run folder, which the first process writes):
    accelerate launch --multi_gpu --num_processes 4 -m magicfuse_training.cli stage ikr ...
Two processes on a CPU, which accelerate's launcher does not support:
    torchrun --nproc-per-node 2 -m -- magicfuse_training.cli stage ikr ...
A run that can be repeated bit by bit, even if it is killed and restarted:
    magicfuse-train stage ikr --data KIND:ROOT --steps 2000
Watching it:
    tensorboard --logdir runs/nano

The budget is minutes or steps. With minutes, the learning rate follows the elapsed time, so that a
run on any machine ends annealed. With steps, everything is a function of the seed and the step: the
crops, the noise that losses draw, the rate. On a CPU, a killed and resumed run then ends with
exactly the same bits as an uninterrupted one, with the same number of threads.

A step's batch is cut into parts, one for each process and each round of gradient accumulation.
Together they are the batch that a single process would see; their gradients are averaged. As usual,
batch statistics and the losses' means over valid pixels are computed per part.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import nn

from magicfuse_ros.interrupt import Interrupt
from magicfuse_training.console import say
from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.stages import run_folder
from magicfuse_training.stages.accelerator import MixedPrecision, make_accelerator
from magicfuse_training.stages.checkpoint import (
    fingerprint,
    load_checkpoint,
    load_weights,
    save_atomically,
)
from magicfuse_training.stages.loading import load_parts, remedies
from magicfuse_training.stages.monitor import Monitor
from magicfuse_training.stages.preparation import prepare
from magicfuse_training.stages.randomness import seed_step
from magicfuse_training.stages.stage import Stage, StageModule, to_device

LOG_EVERY_S = 20.0
SAVE_EVERY_S = 120.0  # the most that a kill can cost
EXAMINE_EVERY_S = 300.0
MAX_SKIPPED = 20  # steps in a row; one bad batch must not end a run of hours, a diverged run must


@dataclass
class Progress:
    """The progress of a run; part of its checkpoint."""

    step: int = 0  # steps done, skipped ones included
    elapsed: float = 0.0  # seconds
    skipped: int = 0  # steps whose gradient was not finite
    skipped_in_a_row: int = 0


class Trainer:
    """Runs one stage in `folder`: see `run_folder` for its content.

    Args:
        stage: the stage; the model's preset may override its optimizer and its schedule.
        model: trained in place.
        folder: folder of this stage; training resumes from a checkpoint in it.
        minutes: time budget; either this or `steps`.
        steps: budget in steps.
        accumulate: parts that each process computes one after the other: less memory, same batch.
        mixed_precision: precision of convolutions and matrix products, for speed; None: the
            precision that the run started with, or `fastest_precision` for a new run. Weights, DDIM
            arithmetic and losses stay float32.

    Raises:
        TrainingError: for an invalid budget, or a precision that the device does not support.
    """

    def __init__(
        self,
        stage: Stage,
        model: MagicFuse,
        folder: Path,
        minutes: float | None = None,
        *,
        steps: int | None = None,
        accumulate: int = 1,
        mixed_precision: MixedPrecision | None = None,
    ) -> None:
        if (minutes is None) == (steps is None):
            raise TrainingError(
                f"budget is {minutes} minutes and {steps} steps; expected one of the two"
            )
        self.minutes, self.steps = minutes, steps
        self.start_weights = fingerprint(model)
        self.folder, self.checkpoint = folder, folder / "last.pt"
        self.stage = stage.started_from(model).overridden_by(model.preset)
        self.accumulate = accumulate
        precision = mixed_precision or run_folder.recorded_precision(folder)
        self.accelerator = make_accelerator(accumulate, precision)
        self.mixed_precision: str = self.accelerator.mixed_precision
        self.model, self.ema = model, copy.deepcopy(model).eval().requires_grad_(False)
        several = self.accelerator.num_processes > 1
        if several and self.accelerator.device.type == "cuda" and not stage.frozen_statistics:
            # Share statistics between all processes. Torch cannot do that on CPUs: each part then
            # has its own, and DDP distributes the first process's running statistics to all.
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        module = StageModule(model, self.stage)
        self.parameters = list(module.trained_weights.values())
        optimizer = self.stage.optimizer.build(module.trained_weights)
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.ema.to(self.accelerator.device)
        self.at = Progress()
        self.means: dict[str, float] = {}  # of the losses, over about 50 steps
        self.rate = self.gradient_norm = 0.0  # of the last step

    @property
    def parts(self) -> int:
        """Number of parts of a step's batch."""
        processes: int = self.accelerator.num_processes
        return processes * self.accumulate

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1 or more."""
        if self.steps is not None:
            return self.at.step / self.steps if self.steps else 1.0
        return self.at.elapsed / (60 * self.minutes) if self.minutes else 1.0

    def run(
        self,
        crops: Crops,
        workers: int = 1,
        *,
        validation: Batch | None = None,
        data: Sequence[str] = (),
        start: str = "random weights",
        opened: Callable[[], None] = lambda: None,
    ) -> MagicFuse:
        """Train until the budget is spent; return the averaged model in evaluation mode.

        Args:
            crops: the training data; its seed is the run's, its `config.batch` the total batch.
            workers: processes that make crops, for each training process.
            validation: a small fixed batch for pictures and losses.
            data: rows of `run_folder.data_rows`, to detect changed data.
            start: origin of the model's weights, for the record.
            opened: called by the main process once the run is known to be new or unchanged.

        Raises:
            TrainingError: if another process trains in the folder, the folder's run was started
                with other settings, data or weights, the batch cannot be divided, a worker
                dies, or the gradient stays non-finite.
            KeyboardInterrupt: after Ctrl-C, once the current step's checkpoint is written.
        """
        if crops.config.batch % self.parts:
            raise TrainingError(
                f"batch is {crops.config.batch}; expected a multiple of {self.parts} "
                f"({self.accelerator.num_processes} processes x {self.accumulate} accumulated)"
            )
        ours = self.accelerator.is_main_process
        with run_folder.locked(self.folder) if ours else nullcontext():
            self._open(crops, data, start)
            if ours:
                opened()
            return self._run(crops, workers, validation)

    def _run(self, crops: Crops, workers: int, validation: Batch | None) -> MagicFuse:
        """Train in the folder, which this process holds and has opened; see `run`."""
        if self.progress >= 1 and self.checkpoint.exists():
            return self.ema
        # This forks, so it comes before the monitor starts its threads.
        batches = load_parts(crops, self.at.step, self.accumulate, workers, self.accelerator)
        if not self.at.step and self.stage.frozen_statistics:
            module = self.accelerator.unwrap_model(self.module)
            part = crops.config.batch // self.parts
            if done := prepare(module, crops, part, self.accelerator.device):
                self.ema.load_state_dict(self.model.state_dict())
            if self.accelerator.is_main_process:
                for sentence in done:
                    say(sentence)
        if not self.accelerator.is_main_process:
            with remedies(workers):
                self._loop(crops, batches, None)
            return self.ema
        shown = None if validation is None else to_device(validation, self.accelerator.device)
        # Several processes would stop at different steps; for them, Ctrl-C keeps its default
        # effect.
        hold = self.accelerator.num_processes == 1
        with (
            Monitor(self.folder, self.stage, self.at.step, shown) as monitor,
            Interrupt(hold) as interrupt,
            remedies(workers),
        ):
            self._loop(crops, batches, monitor, lambda: interrupt.asked)
        return self.ema

    def _loop(
        self,
        crops: Crops,
        batches: Iterator[Batch],
        monitor: Monitor | None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train until the budget is spent, or until `stop` is true after a step.

        Raises:
            KeyboardInterrupt: in the second case, once the checkpoint is written.
        """
        size = crops.config.batch
        first, begun, speed = self.at.step, time.monotonic(), 0.0
        last = last_log = last_save = last_examined = begun
        if monitor:
            monitor.examine(self.at.step, self.ema)
        while self.progress < 1:
            parts = list(itertools.islice(batches, self.accumulate))
            losses = self.train_step(parts, crops.seed, epoch=self.at.step * size / crops.scenes)
            if self.at.skipped_in_a_row == MAX_SKIPPED:
                raise TrainingError(
                    f"stage '{self.stage.name}': no finite gradient in {MAX_SKIPPED} steps up to "
                    f"step {self.at.step}; lower the learning rate, or give --mixed-precision no"
                )
            for name, value in losses.items():
                self.means[name] = 0.98 * self.means.get(name, value) + 0.02 * value
            now = time.monotonic()
            self.at.elapsed, last = self._agree(self.at.elapsed + now - last), now
            if not monitor:
                continue
            speed = size * (self.at.step - first) / (now - begun)
            monitor.show(self.progress, self.at.step, self.means, self._state(speed))
            if stop():
                self.save()
                raise KeyboardInterrupt(
                    f"interrupted after step {self.at.step} of stage '{self.stage.name}', which "
                    f"'{self.checkpoint}' holds; the same command resumes there"
                )
            if now - last_log > LOG_EVERY_S:
                last_log = now
                monitor.log(self.at.step, self.at.elapsed, self.means, self._state(speed))
            if now - last_save > SAVE_EVERY_S:
                last_save = now
                self.save()
            if now - last_examined > EXAMINE_EVERY_S:
                last_examined = now
                monitor.examine(self.at.step, self.ema)
        if monitor:
            self.save()  # first: drawing pictures takes a while, and may fail
            monitor.log(self.at.step, self.at.elapsed, self.means, self._state(speed))
            monitor.examine(self.at.step, self.ema)
        self.accelerator.wait_for_everyone()

    def train_step(self, parts: Sequence[Batch], seed: int, epoch: float) -> dict[str, float]:
        """Do one optimizer step on this process's parts of a batch; return its mean losses.

        A step with a non-finite gradient is counted but changes nothing; it returns no losses.
        """
        at, config = self.at, self.stage.optimizer
        factor = self.stage.schedule.factor(at.step, self.progress, epoch)
        self.rate = config.learning_rate * factor
        for group in self.optimizer.param_groups:
            # Loading a checkpoint of before there were factors leaves groups without one.
            group["lr"] = self.rate * group.get("factor", 1.0)
        buffers = [b.clone() for b in self.model.buffers()]
        losses: dict[str, list[float]] = {}
        for i, part in enumerate(parts):
            seed_step(seed, at.step, self.accelerator.process_index * self.accumulate + i)
            with self.accelerator.accumulate(self.module):
                total, terms = self.module(to_device(part, self.accelerator.device))
                self.accelerator.backward(total)
            numbers = torch.stack(list(terms.values())).tolist()  # waits for the device, once
            for name, value in zip(terms, numbers, strict=True):
                losses.setdefault(name, []).append(value)
        # All processes share the gradients of this norm, so they all decide alike.
        norm = self.accelerator.clip_grad_norm_(self.parameters, config.clip_norm)
        self.gradient_norm = float(norm)
        finite = math.isfinite(self.gradient_norm)
        if finite or self.accelerator.scaler:  # the scaler skips the step and lowers its scale
            self.optimizer.step()
        self.optimizer.zero_grad()
        at.step += 1
        if not finite:
            for buffer, old in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(old)
            at.skipped, at.skipped_in_a_row = at.skipped + 1, at.skipped_in_a_row + 1
            return {}
        at.skipped_in_a_row = 0
        self._average(min(0.999, (1 + at.step) / (20 + at.step)))  # soon forgets the random weights
        return {name: sum(values) / len(values) for name, values in losses.items()}

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        ours, theirs = self.ema.state_dict(), self.model.state_dict()
        floats = [k for k in ours if ours[k].is_floating_point()]
        torch._foreach_lerp_([ours[k] for k in floats], [theirs[k] for k in floats], 1 - decay)

    def _agree(self, seconds: float) -> float:
        """Return the first process's clock: all must stop at the same step."""
        if self.accelerator.num_processes == 1:
            return seconds
        clock = torch.tensor([seconds], dtype=torch.float64, device=self.accelerator.device)
        return float(broadcast(clock))

    def _state(self, speed: float) -> dict[str, float]:
        return {
            "rate": self.rate,
            "gradient_norm": self.gradient_norm,
            "crops_per_second": round(speed, 2),
            "skipped": self.at.skipped,
        }

    def _open(self, crops: Crops, data: Sequence[str], start: str) -> None:
        """Record what the run is, or check that it is unchanged and load its checkpoint."""
        budget = {"minutes": self.minutes, "steps": self.steps}
        config = run_folder.run_config(
            self.stage,
            crops.config,
            self.model.preset,
            seed=crops.seed,
            mixed_precision=self.mixed_precision,
            crops_by=type(crops).__name__,
            parts=self.parts,
            budget=budget,
            start=start,
            draws=[
                [len(scenes), round(float(share), 6)]
                for scenes, share in zip(crops.groups, crops.probabilities, strict=True)
            ],
        )
        config["start_weights"] = self.start_weights  # last: any other difference says more
        going_on = self.checkpoint.exists()
        if going_on:
            run_folder.check_unchanged(self.folder, config, data)
            self._load()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not going_on:
                run_folder.write_start(self.folder, config, data)
            device, processes = self.accelerator.device, self.accelerator.num_processes
            line = {"step": self.at.step, "budget": budget}
            line |= run_folder.environment(device, processes)
            run_folder.append_line(self.folder / "environment.jsonl", line)

    def _load(self) -> None:
        state = load_checkpoint(self.checkpoint, set(self._checkpoint()))
        load_weights(self.model, state["model"], self.checkpoint)
        load_weights(self.ema, state["ema"], self.checkpoint)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.means = state["means"]
        self.at = Progress(**{f.name: state[f.name] for f in fields(Progress)})

    def _checkpoint(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "means": self.means,
            **asdict(self.at),
        }

    def save(self) -> None:
        """Write the checkpoint."""
        save_atomically(self._checkpoint(), self.checkpoint)
