"""The denoising U-Net: one class for ikr (restores the visible) and ckg (estimates the thermal)."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.blocks import (
    Activation,
    Attention,
    Norm,
    ResidualBlock,
    TimeEmbedding,
    activation,
    before_activation,
    conv3,
    zero_init,
)


class UNetConfig(BaseModel):
    """Shape of a U-Net: `widths[i]` channels at 1/2^i of the latent size."""

    model_config = ConfigDict(extra="forbid")

    widths: list[int]
    blocks: int  # residual blocks a level going down
    up_blocks: int  # going up; each takes one skip of its level, newest first
    heads: int  # of the attention in the middle
    time_channels: int
    norm: Norm
    act: Activation


class UNet(nn.Module):
    """Predicts noise or velocity of z, given the condition (Eq. 7)."""

    def __init__(self, config: UNetConfig, condition_channels: int, latent_channels: int) -> None:
        super().__init__()
        time, norm, act = config.time_channels, config.norm, config.act
        widths = config.widths
        self.up_blocks = config.up_blocks
        self.time = TimeEmbedding(widths[0], time)
        self.inlet = conv3(condition_channels + latent_channels, widths[0])
        self.down = nn.ModuleList()
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
        self.middle1 = ResidualBlock(channels, channels, time, norm, act)
        self.attention = Attention(channels, config.heads, norm)
        self.middle2 = ResidualBlock(channels, channels, time, norm, act)
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            blocks = nn.ModuleList()
            for _ in range(config.up_blocks):
                blocks.append(
                    ResidualBlock(channels + skips[level].pop(), widths[level], time, norm, act)
                )
                channels = widths[level]
            self.up.append(blocks)
        self.norm = before_activation(norm, channels)
        self.act = activation(act)
        self.outlet = zero_init(conv3(channels, latent_channels))

    def forward(self, condition: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Map condition (B, C, h, w), z (B, L, h, w), t (B,) to the prediction (B, L, h, w)."""
        time = self.time(t)
        h = self.inlet(torch.cat([condition, z], dim=1))
        skips: list[list[Tensor]] = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
            skips.append([h])
            for block in cast(nn.ModuleList, blocks):
                h = block(h, time)
                skips[level].append(h)
        h = self.middle2(self.attention(self.middle1(h, time)), time)
        for level, blocks in zip(reversed(range(len(skips))), self.up, strict=True):
            if h.shape[-2:] != skips[level][0].shape[-2:]:
                h = F.interpolate(h, size=skips[level][0].shape[-2:], mode="nearest")
            for block in cast(nn.ModuleList, blocks):
                h = block(torch.cat([h, skips[level].pop()], dim=1), time)
        out: Tensor = self.outlet(self.act(self.norm(h)))
        return out
