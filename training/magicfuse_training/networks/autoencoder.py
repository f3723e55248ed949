# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Autoencoder: one for visible, thermal and fused images.

    image (B, 3, H, W) in [0, 1] --Encoder--> latent    (B, L, h, w) in [-1, 1]
                                              condition (B, C, h, w), the input of the streams
                                              details   features at 1/4, and the image: what 1/8
                                                        would lose
    latent, details of the degraded image --Decoder--> image (B, 3, H, W)

The latent consists of local features; the condition has also seen the whole scene (`Context`). The
decoder always gets its details from the degraded visible image, whatever latent it decodes, because
a vehicle has no other image. It learns which details belong in a restored, a thermal or a fused
image. Its result is the degraded image times a gain that is shared by 4 x 4 pixels, plus pixels of
its own.

The published form is `latent_only`: the latent at 1/4 is the condition and the decoder's only
input.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.attention import Attention
from magicfuse_training.networks.blocks import (
    Activation,
    Norm,
    ResidualBlock,
    activation,
    conv3,
    normalisation,
)


class AutoencoderConfig(BaseModel):
    """Widths of the autoencoder; the image is processed at 1/4 and 1/8, or at 1, 1/2 and 1/4."""

    model_config = ConfigDict(extra="forbid")

    latent_channels: int
    condition_channels: int  # at the latent size
    detail_channels: int  # at twice the latent size
    stem_channels: int = 0  # at half of the image's size; 0 in the published form
    encoder_blocks: int  # at the latent size; with `latent_only`, at every size
    context_channels: list[int]  # at 1/16, 1/32, ... of the image
    context_blocks: list[int] | None = None  # residual blocks at each of them; None: one
    condition_blocks: int = 0  # residual blocks of the context at the latent size, the last ones
    # At the latent size, at twice that size and, in the published form, at four times that size.
    decoder_channels: tuple[int, int] | tuple[int, int, int]
    decoder_blocks: int  # like encoder_blocks
    norm: Norm
    act: Activation
    decoder_act: Activation = "relu"
    latent_only: bool = False  # the published form
    noise_channels: int = 0  # of Gaussian noise that the published encoder also takes

    @model_validator(mode="after")
    def _published_form(self) -> AutoencoderConfig:
        if len(self.context_blocks or self.context_channels) != len(self.context_channels):
            raise ValueError(
                f"context_blocks has {len(self.context_blocks or ())} values; expected one for "
                f"each of the {len(self.context_channels)} of context_channels"
            )
        if self.latent_only and self.context_channels:
            raise ValueError("context_channels must be empty if latent_only is true")
        if self.latent_only and self.condition_blocks:
            raise ValueError("condition_blocks must be 0 if latent_only is true")
        if self.noise_channels and not self.latent_only:
            raise ValueError("noise_channels must be 0 if latent_only is false")
        if self.latent_only == bool(self.stem_channels):
            raise ValueError("stem_channels must be 0 if latent_only is true, else above 0")
        if len(self.decoder_channels) != (sizes := 3 if self.latent_only else 2):
            raise ValueError(
                f"decoder_channels has {len(self.decoder_channels)} values; expected {sizes} "
                f"if latent_only is {self.latent_only}"
            )
        return self

    @property
    def scale(self) -> int:
        """Image size / latent size."""
        return 4 if self.latent_only else 8

    @property
    def stream_channels(self) -> int:
        """Channels of the condition for the streams."""
        return self.latent_channels if self.latent_only else self.condition_channels


CELL = 4  # width and height in pixels of a cell of the decoder's last features


class Context(nn.Module):
    """Features of the whole scene: downsampling, attention over the coarsest map, upsampling.

    Both streams and the fusion network need them (how much light there was, which pixels are
    people), so they are computed once per frame, whatever K is.
    """

    def __init__(
        self,
        channels: int,
        widths: list[int],
        blocks: list[int],
        last_blocks: int,
        norm: Norm,
        act: Activation,
    ) -> None:
        super().__init__()
        above = [channels, *widths[:-1]]
        self.act = activation(act)
        self.shrink = nn.ModuleList(
            conv3(a, w, stride=2) for a, w in zip(above, widths, strict=True)
        )
        self.down = nn.ModuleList(ResidualBlock(w, w, None, norm, act) for w in widths)
        self.deeper = nn.ModuleList(
            nn.Sequential(*_blocks(n - 1, w, norm, act))
            for n, w in zip(blocks, widths, strict=True)
        )
        self.attention = Attention(widths[-1], 4, norm)
        self.grow = nn.ModuleList(nn.Conv2d(w, a, 1) for a, w in zip(above, widths, strict=True))
        self.up = nn.ModuleList(
            ResidualBlock(a, a, None, norm, act) if i else self.act for i, a in enumerate(above)
        )
        self.last = nn.Sequential(*_blocks(last_blocks, channels, norm, act))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape; h and w must be divisible by 2 once per width."""
        skips = [x]
        for shrink, block, deeper in zip(self.shrink, self.down, self.deeper, strict=True):
            skips.append(deeper(block(self.act(shrink(skips[-1])))))
        h: Tensor = self.attention(skips.pop())
        for grow, block in zip(reversed(self.grow), reversed(self.up), strict=True):
            h = F.interpolate(grow(h), scale_factor=2, mode="nearest")
            h = block(h + skips.pop())
        last: Tensor = self.last(h)
        return last


def _blocks(count: int, channels: int, norm: Norm, act: Activation) -> list[nn.Module]:
    return [ResidualBlock(channels, channels, None, norm, act) for _ in range(count)]


def _unit(inputs: int, outputs: int, norm: Norm, act: Activation, stride: int = 1) -> nn.Sequential:
    """Return convolution, norm, activation: 3x3, or 4x4 if it halves the size."""
    conv = conv3(inputs, outputs) if stride == 1 else nn.Conv2d(inputs, outputs, 4, stride, 1)
    return nn.Sequential(conv, normalisation(norm, outputs), activation(act))


class Encoder(nn.Module):
    """Image to latent, condition and details."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c, d, n = config.condition_channels, config.detail_channels, config.encoder_blocks
        norm, act = config.norm, config.act
        self.latent_only = config.latent_only
        self.noise_channels = config.noise_channels
        if config.latent_only:
            self.stem: nn.Module = nn.Sequential(
                _unit(3, d, norm, act), *_blocks(n, d, norm, act), _unit(d, d, norm, act, stride=2)
            )
            self.fine: nn.Module = nn.Sequential(*_blocks(n, d, norm, act))
            self.down: nn.Module = _unit(d, c, norm, act, stride=2)
            self.merge = _unit(c + config.noise_channels, c, norm, act)
            self.coarse = nn.Sequential(*_blocks(n, c, norm, act))
            self.latent = conv3(c, config.latent_channels)
            self.context: nn.Module = nn.Identity()  # the published form has none
        else:
            s = config.stem_channels
            self.act = activation(act)
            self.stem = nn.Sequential(
                conv3(3, s, stride=2), normalisation(norm, s), activation(act), conv3(s, d, 2)
            )
            self.fine = ResidualBlock(d, d, None, norm, act)
            self.down = conv3(d, c, stride=2)
            self.coarse = nn.Sequential(*_blocks(n, c, norm, act))
            widths = config.context_channels
            blocks = config.context_blocks or [1] * len(widths)
            self.context = Context(c, widths, blocks, config.condition_blocks, norm, act)
            self.latent = nn.Conv2d(c, config.latent_channels, 1)

    def scaled(self, image: Tensor) -> Tensor:
        """Return an image in [0, 1], of any layout, in the networks' value range.

        A night image occupies the lowest ten of 255 codes; the square root spreads them.
        """
        return image if self.latent_only else image.sqrt() - 0.5

    def features(self, scaled: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map a scaled image to local features at the latent size, and at twice that."""
        if self.latent_only:
            fine = self.fine(self.stem(scaled))
            local = self.down(fine)
            if self.noise_channels:
                if noise is None:
                    b, _, h, w = local.shape
                    noise = torch.randn(b, self.noise_channels, h, w, device=local.device)
                local = torch.cat([local, noise], dim=1)
            return self.coarse(self.merge(local)), fine
        fine = self.act(self.fine(self.stem(scaled)))
        return self.act(self.coarse(self.down(fine))), fine

    def condition_and_details(
        self, scaled: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Map a scaled image (B, 3, H, W) to the condition and, if there are any, the details.

        Returns:
            (condition 1/8, detail 1/4), or with `latent_only` (latent 1/4,). `noise`: see `encode`.
        """
        local, fine = self.features(scaled, noise)
        return (self._latent(local),) if self.latent_only else (self.context(local), fine)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Map an image (B, 3, H, W) in [0, 1] to the condition and the details.

        Returns:
            (condition 1/8, detail 1/4, image), or with `latent_only` (latent 1/4,). `noise`: see
            `encode`.
        """
        seen = self.condition_and_details(self.scaled(image), noise)
        return seen if self.latent_only else (*seen, image)

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map an image in [0, 1] to its latent (B, L, h, w) in [-1, 1].

        `noise` (B, N, h, w), standard normal, if the encoder takes some; drawn if it is missing.
        """
        return self._latent(self.features(self.scaled(image), noise)[0])

    def _latent(self, local: Tensor) -> Tensor:
        latent: Tensor = self.latent(local)
        return 2 * torch.sigmoid(latent) - 1 if self.latent_only else torch.tanh(latent)


class Decoder(nn.Module):
    """Latent and details to image."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        a, b, *more = config.decoder_channels
        n, latent, norm, act = (
            config.decoder_blocks,
            config.latent_channels,
            config.norm,
            config.decoder_act,
        )
        self.latent_only = config.latent_only
        self.act = activation(act)
        if config.latent_only:
            (c,) = more
            self.inlet: nn.Module = _unit(latent, a, "none", act)
            self.coarse = nn.Sequential(*_blocks(n, a, norm, act))
            self.fine1 = conv3(a, b)
            self.fine2: nn.Module = nn.Sequential(*_blocks(n, b, norm, act))
            self.half1 = conv3(b, c)
            self.half2: nn.Module = nn.Sequential(*_blocks(n, c, norm, act), conv3(c, 3))
        else:
            self.inlet = conv3(latent, a)
            # It serves three kinds of images, and no single set of batch statistics fits them all.
            self.coarse = nn.Sequential(*_blocks(n, a, "none", act))
            self.to_quarter = nn.Conv2d(a, b, 1)
            self.merge = nn.Conv2d(config.detail_channels, b, 1)
            self.fine1 = conv3(b, b)
            self.fine2 = conv3(b, b)
            self.gain = nn.Conv2d(b, 3, 1)
            self.pixels = conv3(b, 3 * CELL**2)

    def forward(self, latent: Tensor, *details: Tensor) -> Tensor:
        """Return the image (B, 3, H, W); nominally in [0, 1], not clipped.

        `details`: the encoder's details of the degraded image; none with `latent_only`.
        """
        if not self.latent_only:
            pixels, gain, image = self.cells(latent, *details)
            gain = F.interpolate(gain, scale_factor=CELL, mode="nearest")
            return F.pixel_shuffle(pixels, CELL) + gain * image
        h = self.coarse(self.inlet(((latent + 1) / 2).clamp(0, 1)))
        h = self.fine2(self.act(self.fine1(_enlarge(h))))
        return torch.sigmoid(self.half2(self.act(self.half1(_enlarge(h)))))

    def cells(self, latent: Tensor, detail: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels (B, 48, H/4, W/4), the gain of every cell (B, 3, H/4, W/4), and the image.

        `forward` joins them.
        """
        h = self.features(latent, detail)
        return self.pixels(h), self.gain(h), image

    def features(self, latent: Tensor, detail: Tensor) -> Tensor:
        """Return the features for the pixels and gains of each cell, at H/4, W/4."""
        h = _enlarge(self.to_quarter(self.act(self.coarse(self.inlet(latent)))))
        h = self.act(self.fine1(self.act(h + self.merge(detail))))
        total: Tensor = self.act(self.fine2(h))
        return total


def _enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
