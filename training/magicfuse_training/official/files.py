# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads the authors' weight files and fills a model of the `paper` preset with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from magicfuse_ros.errors import MagicFuseError
from magicfuse_training.model import MagicFuse
from magicfuse_training.networks.unet import UNetConfig
from magicfuse_training.official.cut_off import first_cut
from magicfuse_training.official.names import (
    Modules,
    autoencoder_modules,
    fusion_modules,
    unet_modules,
)
from magicfuse_training.preset import Preset, load_preset

GROUPS = 32  # groups of every group norm: widths are multiples of it
_PICKLED = (b"PK", b"\x80\x02")  # first bytes of files of torch.save, since version 1.6 and before
FIRST = "input_blocks.0.0.weight"  # of a U-Net


class WeightsError(MagicFuseError):
    """A weights file that does not fit its role; the message names the file and a tensor."""


@dataclass(frozen=True)
class OfficialFiles:
    """The four files, `.pth` or `.safetensors`."""

    autoencoder: Path
    ikr: Path
    ckg: Path
    mkf: Path


@dataclass(frozen=True)
class _File:
    path: Path
    tensors: dict[str, Tensor]

    def width(self, first: str, multiple: int) -> int:
        """Return the base width: the output channels of the first convolution."""
        found = self.tensors.get(first)
        if found is None or found.ndim != 4 or found.shape[0] % multiple:
            raise WeightsError(
                f"'{self.path}': tensor '{first}' is {_shape(found)}; expected [width, "
                f"channels, 3, 3] with a width that is a multiple of {multiple}"
            )
        return int(found.shape[0])


def published_tensors(model: MagicFuse) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of the four files, by file and published name, as views of a model's.

    Writing into a view changes the model.
    """
    preset = model.preset
    modules: dict[str, Modules] = {
        "autoencoder": autoencoder_modules(preset.autoencoder),
        "ikr": unet_modules(preset.ikr, "ikr"),
        "ckg": unet_modules(preset.ckg, "ckg"),
        "mkf": fusion_modules(preset.mkf),
    }
    networks = {name: [name] for name in modules} | {"autoencoder": ["encoder", "decoder"]}
    result: dict[str, dict[str, Tensor]] = {}
    for file, names in networks.items():
        views = result[file] = {}
        for network in names:
            for name, value in model.get_submodule(network).named_parameters(prefix=network):
                module, _, kind = name.rpartition(".")
                sources = modules[file][module]
                for source, view in zip(sources, value.detach().chunk(len(sources)), strict=True):
                    views[f"{source}.{kind}"] = view
    return result


def load_official(files: OfficialFiles, ikr_heads: int, ckg_heads: int) -> MagicFuse:
    """Return the published model; read base widths from the shapes of the tensors.

    Raises:
        WeightsError: if a file cannot be read or does not fit its role. The message names the file
            and the first tensor that does not fit.
    """
    read = {
        "autoencoder": _read(files.autoencoder),
        "ikr": _read(files.ikr),
        "ckg": _read(files.ckg),
        "mkf": _read(files.mkf),
    }
    model = MagicFuse(_preset(read, ikr_heads, ckg_heads)).eval()
    for role, views in published_tensors(model).items():
        _fill(views, read[role], role)
    return model


def _preset(read: dict[str, _File], ikr_heads: int, ckg_heads: int) -> Preset:
    paper = load_preset("paper")
    image = read["autoencoder"].width("encoder.imgconv.0.weight", 1)
    fusion = read["mkf"].width("inconv.0.weight", GROUPS)
    ikr = _scaled(paper.ikr, read["ikr"], ikr_heads, "ikr")
    ckg = _scaled(paper.ckg, read["ckg"], ckg_heads, "ckg")
    if ikr.widths[0] > ckg.widths[0]:
        raise WeightsError(
            f"'{read['ikr'].path}': tensor '{FIRST}' has width {ikr.widths[0]}, that of "
            f"'{read['ckg'].path}' {ckg.widths[0]}; expected ikr, the smaller network, first"
        )
    return paper.model_copy(
        update={
            "autoencoder": paper.autoencoder.model_copy(
                update={
                    "condition_channels": image,
                    "detail_channels": image,
                    "decoder_channels": (image, image, image),
                }
            ),
            "ikr": ikr,
            "ckg": ckg,
            "mkf": paper.mkf.model_copy(
                update={
                    "widths": [fusion] * len(paper.mkf.widths),
                    "estimate_channels": fusion,
                    "time_channels": 4 * fusion,
                }
            ),
        }
    )


def _scaled(config: UNetConfig, file: _File, heads: int, name: str) -> UNetConfig:
    base = file.width(FIRST, GROUPS)
    widths = [w * base // config.widths[0] for w in config.widths]
    if base % heads:
        raise WeightsError(
            f"{name} heads is {heads}; expected a divisor of {base}, the base width of "
            f"'{file.path}'"
        )
    return config.model_copy(update={"widths": widths, "heads": heads, "time_channels": 4 * base})


def _fill(views: dict[str, Tensor], file: _File, role: str) -> None:
    """Copy a file's tensors; every tensor of either side must be used."""
    for name, view in views.items():
        tensor = file.tensors.get(name)
        if tensor is None or tensor.shape != view.shape:
            raise WeightsError(
                f"'{file.path}': tensor '{name}' is {_shape(tensor)}; {role} has {_shape(view)}"
            )
        view.copy_(tensor)
    if extra := [name for name in file.tensors if name not in views]:
        raise WeightsError(
            f"'{file.path}': tensor '{extra[0]}' is {_shape(file.tensors[extra[0]])}; "
            f"{role} has no such tensor"
        )


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))


def _read(path: Path) -> _File:
    """Read all tensors of a file; flatten a dict of state dicts, with names joined by dots."""
    if not path.is_file():
        raise WeightsError(f"'{path}' is missing; expected a .pth or .safetensors file")
    try:
        with path.open("rb") as file:  # whatever the file's name says
            if file.read(2) in _PICKLED:
                file.seek(0)
                content: Any = torch.load(file, map_location="cpu", weights_only=True)
            else:
                content = load_file(path)
    except Exception as error:  # torch.load has no narrower base class
        if (name := first_cut(path)) is not None:
            raise WeightsError(f"'{path}' is cut off: tensor '{name}' is incomplete") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnpicklingError):  # torch's message recommends loading it anyway
            reason = "it holds other things than tensors and their names"
        raise WeightsError(f"'{path}' is cut off or not a file of weights: {reason}") from error
    return _File(path, _flat(content, path))


def _flat(content: Any, path: Path, prefix: str = "") -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"'{path}': '{prefix or 'content'}' is a {type(content).__name__}; "
            "expected names and tensors"
        )
    result: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            result[f"{prefix}{name}"] = value
        else:
            result |= _flat(value, path, f"{prefix}{name}.")
    return result
