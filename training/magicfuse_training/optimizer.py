# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The optimizers and the learning rate schedules; a preset can set both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from magicfuse_training.errors import TrainingError
from magicfuse_training.muon import Muon
from magicfuse_training.strict_yaml import Strict


class _Config(Strict):
    """What all optimizers share; further fields of each are arguments of its class."""

    _optimizer: ClassVar[Callable[..., torch.optim.Optimizer]]
    clip_norm: float = Field(
        1.0, gt=0, description="largest norm of all gradients together; .inf: no clipping"
    )
    factors: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="factors on the rate, by the start of weights' names; the first that fits. A "
        "rate for trained layers moves new ones too slowly",
    )

    def groups(self, weights: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
        """Return weights by name as groups for an optimizer; `factor` is that on their rate.

        Raises:
            TrainingError: if a name of `factors` fits no weight.
        """
        groups: dict[float, list[nn.Parameter]] = {1.0: []}
        for start in self.factors:
            if not any(name.startswith(start) for name in weights):
                raise TrainingError(f"factors has '{start}'; no trained weight's name starts so")
        for name, weight in weights.items():
            found = (f for start, f in self.factors.items() if name.startswith(start))
            groups.setdefault(next(found, 1.0), []).append(weight)
        return [{"params": some, "factor": f} for f, some in groups.items() if some]

    def build(self, weights: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of weights by name."""
        settings = self.model_dump(exclude={"kind", "clip_norm", "factors"})
        return self._optimizer(self.groups(weights), lr=settings.pop("learning_rate"), **settings)


class AdamWConfig(_Config):
    """AdamW (arXiv 1711.05101): the default, because it needs no tuning for each network."""

    _optimizer = torch.optim.AdamW
    kind: Literal["adamw"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)  # small networks, few minutes: high, then annealed
    weight_decay: float = Field(1e-2, ge=0)


class MuonConfig(_Config):
    """Muon (arXiv 2502.16982) for matrices and kernels, AdamW for the rest."""

    _optimizer = Muon
    kind: Literal["muon"]
    learning_rate: float = Field(gt=0, description="like AdamW's")
    weight_decay: float = Field(1e-2, ge=0)


class AdamConfig(_Config):
    """Adam (arXiv 1412.6980), as in the paper's first phase."""

    _optimizer = torch.optim.Adam
    kind: Literal["adam"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0, description="added to the gradient, unlike AdamW's")


class SGDConfig(_Config):
    """Stochastic gradient descent with momentum, as in the paper's second phase."""

    _optimizer = torch.optim.SGD
    kind: Literal["sgd"]
    learning_rate: float = Field(1e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)


class CosineSchedule(Strict):
    """Half a cosine over the budget (arXiv 1608.03983): the rate is annealed for any budget."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(100, ge=0)  # until AdamW's second moments are reliable
    floor: float = Field(0.01, ge=0, le=1, description="learning rate at the end, as a fraction")

    def factor(self, step: int, progress: float, epoch: float) -> float:
        """Return the factor on the learning rate at a step; `progress` is 0 to 1."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return (self.floor + (1 - self.floor) * cosine) * _warmup(step, self.warmup_steps)


class StepSchedule(Strict):
    """Halved every few epochs, with as many crops per epoch as scenes; .inf: constant."""

    kind: Literal["step"]
    warmup_steps: int = Field(0, ge=0)
    halve_every_epochs: float = Field(gt=0)

    def factor(self, step: int, progress: float, epoch: float) -> float:
        """Return the factor on the learning rate at a step of an epoch, 0.0 at the start."""
        halvings = math.floor(epoch / self.halve_every_epochs)
        return float(0.5**halvings) * _warmup(step, self.warmup_steps)


OptimizerConfig = Annotated[
    AdamWConfig | MuonConfig | AdamConfig | SGDConfig, Field(discriminator="kind")
]
ScheduleConfig = Annotated[CosineSchedule | StepSchedule, Field(discriminator="kind")]


class StageOverrides(Strict):
    """Settings of a preset for one stage; each replaces the stage's own setting completely."""

    optimizer: OptimizerConfig | None = None
    schedule: ScheduleConfig | None = None
    batch: int | None = Field(None, ge=1, description="crops per step, if a run sets none")


def _warmup(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / steps) if steps else 1.0
