# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The content of `bundle.json`. Every number in it has a limit: a bundle may come from anywhere."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from magicfuse_ros.bundle.schedule import Schedule, ddim_steps

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
NetworkName = Literal["encoder", "ikr", "ckg", "mkf", "segmentation", "decoder"]
NETWORKS: tuple[NetworkName, ...] = ("encoder", "ikr", "ckg", "mkf", "segmentation", "decoder")
UNLABELED = 255
ZSegStart = Literal["zeros", "normal"]

_MAX_SIDE = 2**13  # rows or columns of the networks' image
_MAX_ELEMENTS = 2**28  # in a tensor: 1 GB as float32
_ONNX = r"^[A-Za-z0-9_.-]+\.onnx$"
_SHA256 = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorSpec(_Strict):
    """Name, dtype and static shape of a graph's input or output."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[Annotated[int, Field(gt=0)], ...] = Field(max_length=8)

    @model_validator(mode="after")
    def _bounded(self) -> TensorSpec:
        if math.prod(self.shape) > _MAX_ELEMENTS:
            raise ValueError(
                f"tensor '{self.name}' has the shape {list(self.shape)}; expected at most "
                f"{_MAX_ELEMENTS} elements"
            )
        return self


class QuantizedGraph(_Strict):
    """The int8 form of a network."""

    file: str = Field(pattern=_ONNX)
    sha256: str = Field(pattern=_SHA256)
    layers: int = Field(ge=0, description="convolutions and matrix products in int8")
    float32_layers: tuple[str, ...] = Field(
        description="layers kept in float32, because int8 would cost too much accuracy"
    )


class NetworkSpec(_Strict):
    """One network of the bundle."""

    file: str = Field(pattern=_ONNX)
    sha256: str = Field(pattern=_SHA256)
    inputs: tuple[TensorSpec, ...] = Field(max_length=32)
    outputs: tuple[TensorSpec, ...] = Field(max_length=32)
    parameters: int = Field(ge=0, description="number of trained weights")
    gflop: float = Field(ge=0, description="cost of one call: 2 x multiply-adds / 1e9")
    int8: QuantizedGraph | None = None


_Byte = Annotated[int, Field(ge=0, le=255)]


class SemanticClass(_Strict):
    """One class of the segmentation head; its id is the pixel value in the mask."""

    id: int = Field(ge=0, lt=UNLABELED)
    name: str = Field(min_length=1, max_length=100)
    color: tuple[_Byte, _Byte, _Byte] = Field(description="RGB, for overlays")
    thermal: bool = Field(description="warm: MagImg takes it from the thermal estimate (Eq. 11)")
    drivable: bool

    @field_validator("name")
    @classmethod
    def _in_one_line(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError(f"class name is {name!r}; expected printable text in one line")
        return name


class Provenance(_Strict):
    """Where the weights come from, and their measured scores."""

    data: list[str]
    weights_license: str
    commit: str
    created: str
    training_minutes: dict[str, float] = {}
    recipe: str | None = Field(None, description="name and SHA-256 of the recipe that made it")
    scores: dict[str, Any] = Field({}, description="results of the score command")

    @field_validator("data", "weights_license", "recipe", mode="before")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        """Escape bytes that are no UTF-8, as names of files may have: JSON cannot hold them."""
        if isinstance(value, str):
            return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
        return [cls._printable(item) for item in value] if isinstance(value, list) else value


class Quantization(_Strict):
    """How the int8 graphs were made, and what they cost."""

    tool: str = Field(description="name and version")
    calibration: list[str] = Field(description="frames that the value ranges were measured on")
    losses: dict[str, Any] = Field(
        description="loss of int8 against float32, by data and condition"
    )


class ThermalUncertainty(_Strict):
    """The uncertainty of the thermal estimate: its mean absolute error b.

    The blue channel of the decoder's image of the thermal stream holds a code, 0 to 255, for

        b = lowest * (highest / lowest) ** (code / 255)

    as a fraction of the estimate's full range 0 to 1. The red channel holds the estimate.
    """

    lowest: float = Field(gt=0, description="b of code 0")
    highest: float = Field(gt=0, le=1, description="b of code 255")

    @model_validator(mode="after")
    def _rising(self) -> ThermalUncertainty:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest is {self.lowest}; expected less than highest {self.highest}")
        return self


class Manifest(_Strict):
    """The content of `bundle.json`."""

    format_version: Literal[1]
    name: str
    preset: str
    height: int = Field(gt=0, le=_MAX_SIDE, description="rows of the network's image")
    width: int = Field(gt=0, le=_MAX_SIDE)
    latent_channels: int = Field(gt=0, le=1024)
    latent_scale: int = Field(gt=0, le=128, description="image size / latent size")
    schedule: Schedule
    step_grids: dict[Annotated[int, Field(gt=0, le=1000)], list[int]] = Field(
        max_length=100, description="trained time steps by K"
    )
    default_steps: int
    classes: list[SemanticClass] = Field(min_length=1)
    tau: float = Field(ge=0, le=1)
    seed: int = Field(ge=0, lt=2**64, description="seed of everything random in a frame")
    z_seg_start: ZSegStart = Field(
        "zeros", description="z_seg at the first step: zeros or standard normal"
    )
    precision: Literal["float32", "float16", "int8"]
    thermal_uncertainty: ThermalUncertainty | None = Field(
        None, description="code of the thermal image's blue channel; None: its luma is the estimate"
    )
    networks: dict[NetworkName, NetworkSpec]
    quantization: Quantization | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if missing := [n for n in NETWORKS if n not in self.networks]:
            raise ValueError(f"networks lack {', '.join(missing)}")
        quantized = [n for n in NETWORKS if self.networks[n].int8]
        if quantized and len(quantized) < len(NETWORKS):
            raise ValueError(f"only {', '.join(quantized)} of the networks have int8 graphs")
        if self.default_steps not in self.step_grids:
            raise ValueError(
                f"default_steps is {self.default_steps}; trained are {sorted(self.step_grids)}"
            )
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids must be 0, 1, 2, ... in order")
        for size in (self.height, self.width):
            if size % self.latent_scale:
                raise ValueError(f"image size {size} is not a multiple of {self.latent_scale}")
        rows, columns = self.height // self.latent_scale, self.width // self.latent_scale
        planes = max(self.latent_channels, len(self.classes))
        if planes * rows * columns > _MAX_ELEMENTS:
            raise ValueError(
                f"a latent is {planes} x {rows} x {columns}; expected at most {_MAX_ELEMENTS} "
                "elements"
            )
        for steps, timesteps in self.step_grids.items():
            if len(timesteps) != steps:
                raise ValueError(f"step grid {steps} has {len(timesteps)} time steps")
            ddim_steps(self.schedule, timesteps)
        return self
