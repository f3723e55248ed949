# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The denoising U-Net: one class for ikr (restores the visible) and ckg (estimates the thermal)."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.attention import Attention, TransformerBlock
from magicfuse_training.networks.blocks import (
    Activation,
    Norm,
    ResidualBlock,
    TimeEmbedding,
    activation,
    before_activation,
    conv3,
    convolve,
    zero_init,
)


class UNetConfig(BaseModel):
    """Shape of a U-Net: `widths[i]` channels at 1/2^i of the latent size.

    The defaults are those of `edge` and `nano`; the published networks set them all.
    """

    model_config = ConfigDict(extra="forbid")

    widths: list[int]
    blocks: int  # residual blocks per level going down
    up_blocks: int  # going up; each takes one skip of its level, newest first
    heads: int  # of every attention; there is one in the middle unless this is 0
    time_channels: int
    norm: Norm
    act: Activation
    attention: list[bool] = []  # levels with an attention after every block
    transformer: bool = False  # attention followed by a second one and a feed-forward layer
    up_convolutions: bool = False  # a 3x3 convolution after every enlargement

    @model_validator(mode="after")
    def _one_attention_a_level(self) -> UNetConfig:
        if self.attention and len(self.attention) != len(self.widths):
            raise ValueError(
                f"attention has {len(self.attention)} levels; widths have {len(self.widths)}"
            )
        return self


class UNet(nn.Module):
    """Predicts the noise or the velocity of z, given the condition (Eq. 7)."""

    def __init__(self, config: UNetConfig, condition_channels: int, latent_channels: int) -> None:
        super().__init__()
        time, norm, act = config.time_channels, config.norm, config.act
        widths = config.widths
        attends = config.attention or [False] * len(widths)
        self.time = TimeEmbedding(widths[0], time)
        self.inlet = conv3(condition_channels + latent_channels, widths[0])
        self.down = nn.ModuleList()
        self.down_attention = nn.ModuleList()
        self.shrink = nn.ModuleList()
        channels, skips = widths[0], [[w] for w in widths]
        for level, width in enumerate(widths):
            if level:
                self.shrink.append(conv3(channels, channels, stride=2))
                skips[level] = [channels]
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(ResidualBlock(channels, width, time, norm, act))
                channels = width
                skips[level].append(channels)
            self.down.append(blocks)
            self.down_attention.append(_attentions(config, width, config.blocks, attends[level]))
        self.middle1 = ResidualBlock(channels, channels, time, norm, act)
        self.attention = _attention(config, channels)
        self.middle2 = ResidualBlock(channels, channels, time, norm, act)
        self.up = nn.ModuleList()
        self.up_attention = nn.ModuleList()
        self.enlarge = nn.ModuleList()
        for level in reversed(range(len(widths))):
            blocks = nn.ModuleList()
            for _ in range(config.up_blocks):
                blocks.append(
                    ResidualBlock(channels + skips[level].pop(), widths[level], time, norm, act)
                )
                channels = widths[level]
            self.up.append(blocks)
            self.up_attention.append(
                _attentions(config, channels, config.up_blocks, attends[level])
            )
            if level:
                self.enlarge.append(
                    conv3(channels, channels) if config.up_convolutions else nn.Identity()
                )
        self.norm = before_activation(norm, channels)
        self.act = activation(act)
        self.outlet = zero_init(conv3(channels, latent_channels))

    def forward(self, condition: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Map condition (B, C, h, w), z (B, L, h, w), t (B,) to the prediction (B, L, h, w)."""
        time = self.time(t)
        h = convolve(self.inlet, [condition, z], separate=1)
        skips: list[list[Tensor]] = []
        for level, (blocks, attentions) in enumerate(
            zip(self.down, self.down_attention, strict=True)
        ):
            if level:
                h = self.shrink[level - 1](h)
            skips.append([h])
            for block, attention in zip(_list(blocks), _list(attentions), strict=True):
                h = attention(block(h, time))
                skips[level].append(h)
        h = self.middle2(self.attention(self.middle1(h, time)), time)
        levels = reversed(range(len(skips)))
        for i, level in enumerate(levels):
            if i:
                h = F.interpolate(h, size=skips[level][0].shape[-2:], mode="nearest")
                h = self.enlarge[i - 1](h)
            for block, attention in zip(
                _list(self.up[i]), _list(self.up_attention[i]), strict=True
            ):
                h = attention(block(torch.cat([h, skips[level].pop()], dim=1), time))
        out: Tensor = self.outlet(self.act(self.norm(h)))
        return out


def _attention(config: UNetConfig, channels: int) -> nn.Module:
    if not config.heads:
        return nn.Identity()
    if config.transformer:
        return TransformerBlock(channels, config.heads, config.norm)
    return Attention(channels, config.heads, config.norm)


def _attentions(config: UNetConfig, channels: int, count: int, wanted: bool) -> nn.ModuleList:
    """Return the layer that follows each of a level's blocks."""
    return nn.ModuleList(
        _attention(config, channels) if wanted else nn.Identity() for _ in range(count)
    )


def _list(modules: nn.Module) -> nn.ModuleList:
    return cast(nn.ModuleList, modules)
