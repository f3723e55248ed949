"""A preset: everything that makes one model, read from one YAML file. Unknown keys are errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from magicfuse_ros.bundle import SemanticClass, ZSegStart
from magicfuse_ros.schedule import Schedule
from magicfuse_training.errors import PresetError, did_you_mean
from magicfuse_training.losses.config import LossConfig
from magicfuse_training.networks.autoencoder import AutoencoderConfig
from magicfuse_training.networks.fusion import FusionConfig
from magicfuse_training.networks.unet import UNetConfig
from magicfuse_training.stages.optimizer import StageOverrides

PRESETS = Path(__file__).parent / "presets"


class Preset(BaseModel):
    """Networks, schedule, classes and step grids of a model."""

    model_config = ConfigDict(extra="forbid")

    name: str
    height: int
    width: int
    schedule: Schedule
    spacing: Literal["trailing", "leading"] = Field("trailing", description="of the step grids")
    steps: list[int] = Field(description="the K that the model is trained for")
    default_steps: int
    tau: float
    seed: int
    autoencoder: AutoencoderConfig
    ikr: UNetConfig
    ckg: UNetConfig
    mkf: FusionConfig
    segmentation_width: int = Field(description="of the head that refines z_seg; 0: there is none")
    z_seg_start: ZSegStart = Field("zeros", description="the segmentation state at the first step")
    classes: list[SemanticClass]
    losses: LossConfig
    training: dict[str, StageOverrides] = Field({}, description="by stage, in place of its own")

    @model_validator(mode="after")
    def _consistent(self) -> Preset:
        if self.segmentation_width and self.autoencoder.latent_only:
            raise ValueError(
                f"segmentation_width is {self.segmentation_width}; expected 0, since the head "
                "refines by details, which autoencoder.latent_only leaves out"
            )
        if len(self.losses.class_weights) != len(self.classes):
            raise ValueError(
                f"losses.class_weights has {len(self.losses.class_weights)} values; expected one "
                f"for each of the {len(self.classes)} classes"
            )
        if self.schedule.prediction == "epsilon" and self.schedule.zero_terminal_snr:
            raise ValueError(
                "schedule.zero_terminal_snr is true; expected false with prediction epsilon, "
                "which divides by sqrt(alpha-bar)"
            )
        return self

    def timesteps(self, count: int) -> list[int]:
        """Return the time steps of the grid of K = `count`.

        Raises:
            ValueError: if `count` is not in 1 .. T.
        """
        if self.spacing == "leading":
            return self.schedule.leading_timesteps(count)
        return self.schedule.trailing_timesteps(count)


def load_preset(name: str) -> Preset:
    """Read a preset by name, or from a YAML file.

    Raises:
        PresetError: naming the file, the key and its place, and the nearest known key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PRESETS.glob("*.yaml"))
        raise PresetError(
            f"preset '{name}' is no YAML file, and unknown{did_you_mean(name, known)}"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PresetError(f"preset '{name}' is not YAML: {error}") from error
    try:
        return Preset.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(e, values) for e in error.errors())
        raise PresetError(f"preset '{name}': {problems}") from error


def _describe(error: ErrorDetails, values: Any) -> str:
    """Say in one clause which key is wrong, and how."""
    *parents, key = error["loc"] or ("the file",)
    place = []
    for part in parents:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            continue  # the tag of a union, which is no key
        place.append(part)
    name = ".".join(map(str, [*place, key]))
    if error["type"] == "extra_forbidden":
        return f"{name} is unknown{did_you_mean(str(key), _keys(parents))}"
    if error["type"] == "missing":
        return f"{name} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], dict):  # keys that do not hold together; the message names them
        return f"{name}: {message}" if error["loc"] else message
    return f"{name} is {error['input']!r}: {message}"


def _keys(place: Sequence[int | str]) -> list[str]:
    """Return the keys that a preset knows at a place such as ("ikr",) or ("classes", 3)."""
    models: list[type[BaseModel]] = [Preset]
    for part in place:  # an index, a key of a dict or the tag of a union leads to no new model
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [m for f in fields for m in _models_in(f.annotation)] or models
    return list(dict.fromkeys(name for m in models for name in m.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models within an annotation such as list[Model] or Model | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in get_args(annotation) for m in _models_in(inner)]
