# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The definition of a stage, and the module that computes its loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from magicfuse_training.data.crops import Batch
from magicfuse_training.model import MagicFuse
from magicfuse_training.optimizer import (
    AdamWConfig,
    CosineSchedule,
    OptimizerConfig,
    ScheduleConfig,
)
from magicfuse_training.preset import Preset

Loss = Callable[[MagicFuse, Batch], dict[str, Tensor]]
LossFromStart = Callable[[MagicFuse], Loss]


@dataclass(frozen=True)
class Stage:
    """One stage: the networks it trains, its mix of data, and its losses."""

    name: str
    trained: tuple[str, ...]  # names of sub-networks; all others are frozen
    loss: Loss | None  # named terms; their sum is minimised. None: `loss_from` makes it
    condition_weights: tuple[float, float, float]  # how often each of mix.CONDITIONS is drawn
    optimizer: OptimizerConfig = field(default_factory=AdamWConfig)
    schedule: ScheduleConfig = field(default_factory=CosineSchedule)
    batch: int | None = None  # crops per step, unless a run sets it; None: CropConfig's
    frozen_statistics: bool = False  # of batch norms: train exactly the function that will run
    loss_from: LossFromStart | None = None  # for a loss that needs the model as the stage starts
    paired_only: bool = False  # whether scenes without a thermal image teach it nothing
    labelled_only: bool = False  # whether scenes without a label teach it nothing
    undegraded: bool = False  # whether batches also hold `seen`: see `Crops`

    def started_from(self, model: MagicFuse) -> Stage:
        """Return the stage with the loss that `loss_from`, if there is one, makes of a model."""
        return self if self.loss_from is None else replace(self, loss=self.loss_from(model))

    def overridden_by(self, preset: Preset) -> Stage:
        """Return the stage with a preset's optimizer, schedule and batch for it."""
        overrides = preset.training.get(self.name)
        if overrides is None:
            return self
        return replace(
            self,
            optimizer=overrides.optimizer or self.optimizer,
            schedule=overrides.schedule or self.schedule,
            batch=overrides.batch or self.batch,
        )


class StageModule(nn.Module):
    """The loss of a stage as a forward pass, which accelerate wraps.

    Losses call the model's parts one by one. Data-parallel training and autocast act on a forward
    pass, so one pass must hold the whole loss.
    """

    def __init__(self, model: MagicFuse, stage: Stage) -> None:
        super().__init__()
        self.model = model
        assert stage.loss is not None, "see Stage.started_from"
        self.loss = stage.loss
        for child in model.children():
            child.eval().requires_grad_(False)
        trained = [model.get_submodule(name) for name in stage.trained]
        for child in trained:
            child.train().requires_grad_(True)
            if stage.frozen_statistics:
                for module in child.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
        self.trained_weights = {
            f"{name}.{inner}": weight
            for name, child in zip(stage.trained, trained, strict=True)
            for inner, weight in child.named_parameters()
        }

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its named terms, scalars; `batch` comes from `to_device`."""
        with batch["degraded"].device:  # the device on which losses draw their noise
            terms = self.loss(self.model, batch)
        return torch.stack(list(terms.values())).sum(), {k: v.detach() for k, v in terms.items()}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch of `Crops` and scale its images to float32 [0, 1], channels last."""
    moved = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    for name in {"degraded", "clean", "thermal", "seen"} & moved.keys():
        image = moved[name].float() / 255
        moved[name] = image.contiguous(memory_format=torch.channels_last)
    return moved
