# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A recipe: how a bundle is made, in one YAML file. Unknown keys are errors.

preset: nano              # a name, or a YAML file beside the recipe
start: null               # random weights; or a bundle of the recipe's repository at a commit:
                          # {commit: 40 digits, bundle: engines/nano}; with `renew: [NAME]`, the
                          # parts whose weights start with NAME start from random weights; with
                          # `leave_out: [NAME]`, parts that the preset lacks are dropped
data: ["msrs:pairs"]      # KIND:FOLDER, the folder relative to the command's --data
stages:                   # run in order, each from the previous one
  - {stage: mkf, minutes: 9}  # `optimizer` replaces the stage's own; its keys: optimizer.py
  - stage: few_step
    steps: 2000
    batch: 12
    crop: [320, 512]        # rows and columns of the crops; by default 256 and 320
    seed: 1
    name: second
    optimizer: {kind: muon, learning_rate: 6.0e-4, factors: {encoder.context.deeper.: 5}}
    class_weights_at_night: [1, 1, 1, 2]   # replaces that of the preset's losses
average: {stages: [mkf, second], weights: [1, 3]}   # what is exported; if omitted, the last stage
                          # `start` may be one of them; networks: [mkf] averages only those
temperature: true         # fit the confidence's temperature to training frames; no mask changes
int8: {minimum_db: 33}    # also make int8 graphs; --data then holds repacked camvid/ and msrs/
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from magicfuse_ros.bundle import NetworkName
from magicfuse_training.errors import RecipeError, did_you_mean
from magicfuse_training.optimizer import OptimizerConfig
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.strict_yaml import Strict, load_strict

CropSide = Annotated[int, Field(ge=64, multiple_of=32)]  # the context is at 1/32
_NAME = r"^[A-Za-z0-9_-]+$"
RESERVED = ("start", "bundle")  # folders of a run that are not stages


class Start(Strict):
    """A bundle at a commit of the recipe's own repository."""

    commit: str = Field(
        pattern=r"^[0-9a-f]{40}$", description="full hash: short ones become ambiguous"
    )
    bundle: str = Field(description="its folder, relative to the root of the repository")
    renew: list[str] = Field(
        [], description="prefixes of names of weights that start as if the bundle lacked them"
    )
    leave_out: list[str] = Field(
        [], description="prefixes of names of weights; those that the preset lacks are dropped"
    )


class StageRun(Strict):
    """One stage and its budget."""

    stage: str
    minutes: float | None = Field(None, ge=0, allow_inf_nan=False)
    steps: int | None = Field(None, ge=0)
    batch: int | None = Field(None, ge=1, description="crops per step")
    crop: tuple[CropSide, CropSide] | None = Field(
        None, description="rows and columns of a crop, multiples of 32; None: CropConfig's"
    )
    seed: int = 0
    name: str | None = Field(
        None, pattern=_NAME, description="name of the run, needed if a stage occurs twice"
    )
    optimizer: OptimizerConfig | None = Field(None, description="replaces the stage's own")
    class_weights_at_night: list[float] | None = Field(
        None, description="replaces that of the preset's losses"
    )

    @property
    def folder(self) -> str:
        """Name of the stage's folder in the run."""
        return self.name or self.stage

    def scaled(self, factor: float) -> StageRun:
        """Return the stage with its budget multiplied by a factor."""
        minutes = None if self.minutes is None else self.minutes * factor
        steps = None if self.steps is None else round(self.steps * factor)
        return self.model_copy(update={"minutes": minutes, "steps": steps})

    @field_validator("stage")
    @classmethod
    def _known(cls, stage: str) -> str:
        if stage not in STAGES:
            raise ValueError(f"unknown{did_you_mean(stage, STAGES)}")
        return stage

    @model_validator(mode="after")
    def _one_budget(self) -> StageRun:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError(
                f"budget is {self.minutes} minutes and {self.steps} steps; expected one of the two"
            )
        return self


class Average(Strict):
    """The weighted mean of several stages."""

    stages: list[str] = Field(
        min_length=1, description="names; `start`: the weights that the first stage began with"
    )
    weights: list[float] = Field(description="one weight for each; they need not add up to 1")
    networks: list[NetworkName] = Field(
        [], description="networks to average; the others come from the last stage"
    )

    @model_validator(mode="after")
    def _weighted(self) -> Average:
        if len(self.weights) != len(self.stages):
            raise ValueError(
                f"weights has {len(self.weights)} values; expected one for each of the "
                f"{len(self.stages)} stages"
            )
        if not all(0 <= w < math.inf for w in self.weights) or not sum(self.weights):
            raise ValueError(f"weights are {self.weights}; expected none below 0, and one above")
        return self


class Int8(Strict):
    """How int8 graphs are made."""

    minimum_db: float = Field(description="see magicfuse-train quantize")


class Recipe(Strict):
    """Preset, start, data and stages of a bundle."""

    preset: str
    start: Start | None = None
    data: list[str] = Field(min_length=1)
    stages: list[StageRun] = Field(min_length=1)
    average: Average | None = None
    temperature: bool = Field(False, description="fit the confidence to the training frames")
    int8: Int8 | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [run.folder for run in self.stages]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"stages has '{twice[0]}' twice; give each a name of its own")
        if taken := [name for name in names if name in RESERVED]:
            raise ValueError(f"a stage's name is '{taken[0]}', which is taken; give it another")
        known = ["start", *names] if self.start else names
        for name in self.average.stages if self.average else ():
            if name not in known:
                raise ValueError(f"average.stages has '{name}'{did_you_mean(name, known)}")
        if self.average and self.average.stages[-1] == "start":
            raise ValueError("average.stages ends with 'start'; expected a stage: start lacks some")
        return self

    def scaled(self, factor: float) -> Recipe:
        """Return the recipe with all budgets multiplied by a factor."""
        return self.model_copy(update={"stages": [run.scaled(factor) for run in self.stages]})


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: names the file, the key and its place, and the nearest known key.
    """
    return load_strict(path, Recipe, f"recipe '{path}'", RecipeError)
