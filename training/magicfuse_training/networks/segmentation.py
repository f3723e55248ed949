# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The last half of the segmentation head S: class scores from the state z_seg."""

from __future__ import annotations

import itertools

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.autoencoder import AutoencoderConfig
from magicfuse_training.networks.blocks import (
    ResidualBlock,
    activation,
    conv3,
    normalisation,
    zero_init,
)


class SemanticsConfig(BaseModel):
    """Shape of `Semantics`: channels and residual blocks at 1/16, 1/32, ... of the image size."""

    model_config = ConfigDict(extra="forbid")

    context_channels: list[int] = Field(min_length=1)
    context_blocks: list[int]
    width: int = Field(ge=1, description="channels at 1/4 of the image size")

    @model_validator(mode="after")
    def _blocks_for_each(self) -> SemanticsConfig:
        if len(self.context_blocks) != len(self.context_channels):
            raise ValueError(
                f"context_blocks has {len(self.context_blocks)} values; expected one for each of "
                f"the {len(self.context_channels)} of context_channels"
            )
        return self


class Semantics(nn.Module):
    """Scores from the condition and the details, which are added to those of the state.

    The streams share the encoder's context, and masks need features that they do not. This part
    serves only masks, M of Eq. 11 included, so it can be trained while the streams stay exactly
    as they are. It starts at zero: a bundle without it gives the same masks.
    """

    def __init__(self, config: SemanticsConfig, ae: AutoencoderConfig, classes: int) -> None:
        super().__init__()
        width, norm, act = config.width, ae.norm, ae.act
        above = [ae.condition_channels, *config.context_channels]
        self.act = activation(act)
        # A norm before every activation: without one, most channels die at full learning rate.
        self.down = nn.ModuleList(
            nn.Sequential(
                conv3(a, w, stride=2),
                normalisation(norm, w),
                activation(act),
                *(ResidualBlock(w, w, None, norm, act) for _ in range(blocks)),
            )
            for a, w, blocks in zip(above, above[1:], config.context_blocks, strict=False)
        )
        self.grow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, a, 1), normalisation(norm, a))
            for a, w in itertools.pairwise(above)
        )
        self.narrow = nn.Conv2d(ae.condition_channels, width, 1)
        self.conv1 = conv3(width + ae.detail_channels, width)
        self.norm1 = normalisation(norm, width)
        self.conv2 = zero_init(conv3(width, classes))

    def forward(self, condition: Tensor, detail_4: Tensor) -> Tensor:
        """Map condition (B, C, H/8, W/8) and details (B, D, H/4, W/4) to scores at H/4, W/4."""
        skips = [condition]
        for down in self.down:
            skips.append(down(skips[-1]))
        h = skips.pop()
        for grow in reversed(self.grow):
            h = F.interpolate(grow(h), scale_factor=2, mode="nearest")
            h = self.act(h + skips.pop())
        h = F.interpolate(self.narrow(h), scale_factor=2, mode="bilinear", align_corners=False)
        h = self.act(self.norm1(self.conv1(torch.cat([h, detail_4], dim=1))))
        scores: Tensor = self.conv2(h)
        return scores


class SegmentationHead(nn.Module):
    """Class scores from the state, refined if there are details."""

    def __init__(
        self, ae: AutoencoderConfig, classes: int, width: int, semantics: SemanticsConfig | None
    ) -> None:
        """With `width` 0, scores are the state, enlarged `scale` times, and nothing is trained."""
        super().__init__()
        self.refined = width > 0
        self.scale = ae.scale
        self.act = activation(ae.act)
        if self.refined:
            self.conv1 = conv3(classes + ae.detail_channels, width)
            self.conv2 = conv3(width, classes)
        self.semantics = Semantics(semantics, ae, classes) if semantics else None

    def forward(
        self, z_seg: Tensor, detail_4: Tensor | None = None, semantics: Tensor | None = None
    ) -> Tensor:
        """Map z_seg (B, classes, h, w) to scores (B, classes, ...).

        With details (B, D, H/4, W/4), which the refined head requires, scores have their size;
        otherwise they are at H, W. `semantics`, of the details' size, are added.
        """
        if not self.refined:
            return F.interpolate(
                z_seg, scale_factor=self.scale, mode="bilinear", align_corners=False
            )
        assert detail_4 is not None
        coarse = F.interpolate(z_seg, scale_factor=2, mode="bilinear", align_corners=False)
        scores: Tensor = coarse + self.conv2(
            self.act(self.conv1(torch.cat([coarse, detail_4], dim=1)))
        )
        return scores if semantics is None else scores + semantics
