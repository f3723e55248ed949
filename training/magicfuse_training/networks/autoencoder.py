"""Autoencoder: one for visible, thermal and fused images.

    image (B, 3, H, W) in [0, 1] --Encoder--> latent    (B, L, H/8, W/8) in [-1, 1]
                                              condition (B, C, H/8, W/8), what the streams look at
                                              details   the features that 1/8 would lose
    latent, details of the degraded image --Decoder--> image (B, 3, H, W)

The decoder gets its details from the degraded visible image, whatever latent it decodes: that is
all a vehicle has. It learns which of them belong into a restored, a thermal or a fused image.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.blocks import Activation, Norm, ResidualBlock, activation, conv3


class AutoencoderConfig(BaseModel):
    """Widths of the autoencoder; the image is handled at 1/2, 1/4 and 1/8."""

    model_config = ConfigDict(extra="forbid")

    latent_channels: int
    condition_channels: int
    detail_channels: int
    encoder_blocks: int
    decoder_channels: tuple[int, int, int]  # at 1/8, 1/4, 1/2
    decoder_blocks: int
    norm: Norm
    act: Activation


PIXELS = 12  # RGB of the 2 x 2 pixels that make one at half size


class Encoder(nn.Module):
    """Image to latent, condition and details."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c, d = config.condition_channels, config.detail_channels
        norm, act = config.norm, config.act
        self.act = activation(act)
        self.stem = conv3(PIXELS, d, stride=2)
        self.fine = ResidualBlock(d, d, None, norm, act)
        self.down = conv3(d, c, stride=2)
        self.coarse = nn.Sequential(
            *[ResidualBlock(c, c, None, norm, act) for _ in range(config.encoder_blocks)]
        )
        self.latent = nn.Conv2d(c, config.latent_channels, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map an image in [0, 1] to (condition 1/8, detail 1/4, detail 1/2)."""
        pixels = F.pixel_unshuffle(image - 0.5, 2)
        fine = self.act(self.fine(self.stem(pixels)))
        condition = self.act(self.coarse(self.down(fine)))
        return condition, fine, pixels

    def encode(self, image: Tensor) -> Tensor:
        """Map an image in [0, 1] to its latent (B, L, H/8, W/8) in [-1, 1]."""
        return torch.tanh(self.latent(self(image)[0]))


class Decoder(nn.Module):
    """Latent and details to image."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        a, b, c = config.decoder_channels
        self.act = activation(config.act)
        self.inlet = conv3(config.latent_channels, a)
        self.coarse = nn.Sequential(
            *[
                ResidualBlock(a, a, None, config.norm, config.act)
                for _ in range(config.decoder_blocks)
            ]
        )
        self.to_quarter = nn.Conv2d(a, b, 1)
        self.fine1 = conv3(b + config.detail_channels, b)
        self.fine2 = conv3(b, b)
        self.to_half = nn.Conv2d(b, c, 1)
        self.half1 = conv3(c + PIXELS, c)
        self.half2 = conv3(c, PIXELS)

    def forward(self, latent: Tensor, detail_4: Tensor, detail_2: Tensor) -> Tensor:
        """Return the image (B, 3, H, W); nominally in [0, 1], not clipped."""
        h = self.to_quarter(self.act(self.coarse(self.inlet(latent))))
        h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
        h = self.act(self.fine1(torch.cat([h, detail_4], dim=1)))
        h = self.to_half(self.act(self.fine2(h)))
        h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
        h = self.act(self.half1(torch.cat([h, detail_2], dim=1)))
        return F.pixel_shuffle(self.half2(h), 2) + 0.5
