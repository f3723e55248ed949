# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Plain networks of preset `nano`'s cost, against which its diffusion form must justify itself.

full                the method: restoring stream, thermal stream and fusion network, K = 1
three-heads         a regression U-Net: `nano`'s encoder with more blocks and wider, and on it one
                    convolution each for the restored image, the thermal estimate and the masks.
                    Its MagImg is a formula of these three: restored image and clipped heat
segmentation-only   the same U-Net, wider still, with masks as its only output

All start from random weights, learn with the losses of stage `one_step`, as far as they have the
outputs, and see exactly the same crops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from magicfuse_training.data.crops import Batch
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.stage import Stage
from magicfuse_training.stages.stages import STAGES, one_step_loss


class _ImageHead(nn.Module):
    """Replaces a stream's U-Net: one convolution of the condition; z and t are ignored."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, condition: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Map condition (B, C, h, w) to (B, L, h, w): at K = 1 the velocity is minus the latent."""
        out: Tensor = self.conv(condition)
        return out


class _MaskHead(nn.Module):
    """Replaces F: one convolution of the condition gives the segmentation state."""

    sees_condition = True

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, classes, 1)

    def forward(self, x0_ikr: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return w = 1, so that nothing is mixed, and the state; inputs as in `FusionNetwork`."""
        return torch.ones_like(x0_ikr), self.conv(inputs[-1])


class ThreeHeads(MagicFuse):
    """A U-Net with three heads: no streams, no fusion network, no use of z or t."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        seen, latent = preset.autoencoder.stream_channels, preset.autoencoder.latent_channels
        self.ikr = _ImageHead(seen, latent)  # type: ignore[assignment]
        self.ckg = _ImageHead(seen, latent)  # type: ignore[assignment]
        self.mkf = _MaskHead(seen, len(preset.classes))  # type: ignore[assignment]


@dataclass(frozen=True)
class Baseline:
    """A model of the comparison.

    Attributes:
        about: what it is, for the table.
        model: its class.
        autoencoder: what differs from the preset's autoencoder: a trunk that makes up for the cost
            of what the model lacks.
        calls: how often each network runs for a frame of MagImg and mask, if not once.
        without: terms of `one_step`'s loss that it does not learn.
        fuses: whether MagImg is its own output, not a formula.
        images: whether it has images at all.
    """

    about: str
    model: type[MagicFuse] = MagicFuse
    autoencoder: Mapping[str, Any] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    fuses: bool = True
    images: bool = True

    def build(self, preset: Preset) -> MagicFuse:
        """Return the model with random weights, for K = 1."""
        changes: dict[str, Any] = {"steps": [1], "default_steps": 1}
        if self.autoencoder:
            changes["autoencoder"] = preset.autoencoder.model_copy(update=dict(self.autoencoder))
        if not self.fuses:
            changes["tau"] = 1.0  # Eq. 11 changes nothing: there is no other image to mix in
        return self.model(preset.model_copy(update=changes))

    def stage(self) -> Stage:
        """Return the stage that trains all of it."""
        return replace(STAGES["one_step"], loss=partial(_loss, without=self.without))


def _loss(model: MagicFuse, batch: Batch, without: tuple[str, ...]) -> dict[str, Tensor]:
    return {k: v for k, v in one_step_loss(model, batch).items() if k not in without}


# The trunks are sized so that a frame costs what one of `nano` costs: see docs/baselines.md.
BASELINES = {
    "full": Baseline("two streams and fusion network, K = 1"),
    "three-heads": Baseline(
        "U-Net with three heads; MagImg by a formula",
        model=ThreeHeads,
        autoencoder={
            "encoder_blocks": 2,
            "condition_channels": 44,
            "context_channels": [80, 160],
            "context_blocks": [1, 2],
        },
        calls={"decoder": 2},  # the formula needs the restored image and the thermal estimate
        without=("fusion",),
        fuses=False,
    ),
    "segmentation-only": Baseline(
        "U-Net, masks only",
        model=ThreeHeads,
        autoencoder={
            "encoder_blocks": 3,
            "condition_channels": 56,
            "context_channels": [88, 176],
            "context_blocks": [2, 1],
        },
        calls={"ikr": 0, "ckg": 0, "decoder": 0},
        without=("restored", "fusion", "thermal", "people", "unseen"),
        fuses=False,
        images=False,
    ),
}
