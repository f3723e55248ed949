# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Costs of a preset's networks: parameters and GFLOP of one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset


def parameters(module: nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(p.numel() for p in module.parameters())


def shapes_only(preset: Preset, kind: type[MagicFuse] = MagicFuse) -> MagicFuse:
    """Return a model with shapes but no values: `paper` would take 2 GB."""
    with torch.device("meta"):
        return kind(preset).eval()


@torch.no_grad()
def gflop_per_call(model: MagicFuse) -> dict[str, float]:
    """Return 2 x multiply-adds / 1e9 of one call of every network at the preset's image size.

    Nothing is computed; only shapes are propagated.
    """
    preset = model.preset
    model = shapes_only(preset, type(model))
    scale = preset.autoencoder.scale
    with torch.device("meta"):
        z = torch.zeros(
            1, preset.autoencoder.latent_channels, preset.height // scale, preset.width // scale
        )
        z_seg, t = z.new_zeros(1, len(preset.classes), *z.shape[2:]), torch.zeros(1)
        image = torch.zeros(1, 3, preset.height, preset.width)
        condition, *details = model.encoder(image)
        calls: dict[str, Callable[[], object]] = {
            "encoder": lambda: model.encoder(image),
            "ikr": lambda: model.ikr(condition, z, t),
            "ckg": lambda: model.ckg(condition, z, t),
            "mkf": lambda: model.mkf(z, z, z, torch.cat([z, z], 1), z_seg, t, condition),
            "segmentation": lambda: model.class_scores(z_seg, condition, *details),
            "decoder": lambda: model.decoder(z, *details),
        }
        costs = {}
        for name, call in calls.items():
            with FlopCounterMode(display=False) as counter:
                call()
            costs[name] = counter.get_total_flops() / 1e9
    return costs
