"""A preset: everything that makes one model, read from one YAML file. Unknown keys are errors."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.schedule import Schedule
from magicfuse_training.networks.autoencoder import AutoencoderConfig
from magicfuse_training.networks.fusion import FusionConfig
from magicfuse_training.networks.unet import UNetConfig

PRESETS = Path(__file__).parent / "presets"


class Preset(BaseModel):
    """Networks, schedule, classes and step grids of a model."""

    model_config = ConfigDict(extra="forbid")

    name: str
    height: int
    width: int
    schedule: Schedule
    steps: list[int] = Field(description="the K that the model is trained for")
    default_steps: int
    tau: float
    seed: int
    autoencoder: AutoencoderConfig
    ikr: UNetConfig
    ckg: UNetConfig
    mkf: FusionConfig
    segmentation_width: int
    classes: list[SemanticClass]


def load_preset(name: str) -> Preset:
    """Read a preset by name, or from a YAML file.

    Raises:
        FileNotFoundError: naming the presets that there are.
        pydantic.ValidationError: for an unknown key or a value out of range.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise FileNotFoundError(f"preset '{name}' is unknown; known are {known}, or a YAML file")
    return Preset.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
