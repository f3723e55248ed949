# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A preset: the complete definition of one model, in one YAML file. Unknown keys are errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from magicfuse_ros.bundle import SemanticClass, ThermalUncertainty, ZSegStart
from magicfuse_ros.bundle.schedule import Schedule
from magicfuse_training.data.classes import MOST_CLASSES
from magicfuse_training.degradations import kinds_of
from magicfuse_training.errors import PresetError, did_you_mean
from magicfuse_training.losses.config import LossConfig
from magicfuse_training.networks.autoencoder import AutoencoderConfig
from magicfuse_training.networks.fusion import FusionConfig
from magicfuse_training.networks.unet import UNetConfig
from magicfuse_training.optimizer import StageOverrides
from magicfuse_training.strict_yaml import load_strict

PRESETS = Path(__file__).parent / "presets"


class Preset(BaseModel):
    """Networks, schedule, classes and step grids of a model."""

    model_config = ConfigDict(extra="forbid")

    name: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    schedule: Schedule
    spacing: Literal["trailing", "leading"] = Field(
        "trailing", description="spacing of the step grids"
    )
    steps: list[int] = Field(description="values of K that the model is trained for")
    default_steps: int
    tau: float = Field(ge=0, le=1)
    seed: int = Field(ge=0)
    autoencoder: AutoencoderConfig
    ikr: UNetConfig
    ckg: UNetConfig
    mkf: FusionConfig
    segmentation_width: int = Field(
        description="width of the head that refines z_seg; 0: there is none"
    )
    segmentation_condition: bool = Field(
        False, description="whether that head also reads the condition"
    )
    thermal_uncertainty: ThermalUncertainty | None = Field(
        None, description="how the decoded thermal image codes its uncertainty; None: it does not"
    )
    z_seg_start: ZSegStart = Field("zeros", description="the segmentation state at the first step")
    classes: list[SemanticClass]
    losses: LossConfig
    degradations: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, description="kinds of degradation besides dark, haze and blur, and the share of crops"
    )
    training: dict[str, StageOverrides] = Field(
        {}, description="settings that replace a stage's own, by stage"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Preset:
        if self.segmentation_width and self.autoencoder.latent_only:
            raise ValueError(
                f"segmentation_width is {self.segmentation_width}; expected 0, since the head "
                "refines by details, which autoencoder.latent_only leaves out"
            )
        if self.segmentation_condition and not self.segmentation_width:
            raise ValueError(
                "segmentation_condition is true; expected false if segmentation_width is 0"
            )
        ids = [c.id for c in self.classes]
        if ids != list(range(len(ids))) or not 1 <= len(ids) <= MOST_CLASSES:
            raise ValueError(
                f"classes have the ids {', '.join(map(str, ids))}; expected 0 to n-1, in this "
                f"order, for at most {MOST_CLASSES} classes"
            )
        if len({c.thermal for c in self.classes}) < 2:
            raise ValueError("expected at least one thermal class and one that is not thermal")
        for key in ("class_weights", "class_weights_at_night"):
            self.check_weights(f"losses.{key}", getattr(self.losses, key), ValueError)
        if self.schedule.prediction == "epsilon" and self.schedule.zero_terminal_snr:
            raise ValueError(
                "schedule.zero_terminal_snr is true; expected false with prediction epsilon, "
                "which divides by sqrt(alpha-bar)"
            )
        most = self.schedule.train_steps
        if not self.steps or not all(1 <= k <= most for k in self.steps):
            raise ValueError(f"steps are {self.steps}; expected one or more, from 1 to {most}")
        if self.default_steps not in self.steps:
            raise ValueError(f"default_steps is {self.default_steps}; expected one of {self.steps}")
        unit = self.autoencoder.scale * 2 ** len(self.autoencoder.context_channels)
        if self.height % unit or self.width % unit:
            raise ValueError(
                f"height and width are {self.height} and {self.width}; expected multiples of {unit}"
            )
        for kind in self.degradations:
            kinds_of(kind)  # raises for an unknown kind
        return self

    def check_weights(self, name: str, weights: list[float] | None, error: type[Exception]) -> None:
        """Raise `error` unless there is one weight for each class, or None."""
        if weights is not None and len(weights) != len(self.classes):
            raise error(
                f"{name} has {len(weights)} values; expected one for each of the "
                f"{len(self.classes)} classes"
            )

    def timesteps(self, count: int) -> list[int]:
        """Return the time steps of the grid for K = `count`.

        Raises:
            ValueError: if `count` is not in 1 .. T.
        """
        if self.spacing == "leading":
            return self.schedule.leading_timesteps(count)
        return self.schedule.trailing_timesteps(count)


def load_preset(name: str) -> Preset:
    """Read a preset by name, or from a YAML file.

    Raises:
        PresetError: names the file, the key and its place, and the nearest known key.
    """
    beside = name.endswith((".yaml", ".yml"))
    path = Path(os.path.expanduser(name)) if beside else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PRESETS.glob("*.yaml"))
        raise PresetError(
            f"preset '{name}' is neither a YAML file nor a known preset{did_you_mean(name, known)}"
        )
    return load_strict(path, Preset, f"preset '{name}'", PresetError)
