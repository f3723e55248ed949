"""Autoencoder: one for visible, thermal and fused images.

    image (B, 3, H, W) in [0, 1] --Encoder--> latent    (B, L, H/8, W/8) in [-1, 1]
                                              condition (B, C, H/8, W/8), what the streams look at
                                              details   the features that 1/8 would lose
    latent, details of the degraded image --Decoder--> image (B, 3, H, W)

The latent is made of local features; the condition has also seen the scene as a whole (`Context`).
The decoder gets its details from the degraded visible image, whatever latent it decodes: that is
all a vehicle has. It learns which of them belong into a restored, a thermal or a fused image.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.blocks import (
    Activation,
    Attention,
    Norm,
    ResidualBlock,
    activation,
    conv3,
)


class AutoencoderConfig(BaseModel):
    """Widths of the autoencoder; the image is handled at 1/2, 1/4 and 1/8."""

    model_config = ConfigDict(extra="forbid")

    latent_channels: int
    condition_channels: int
    detail_channels: int
    encoder_blocks: int
    context_channels: list[int]  # at 1/16, 1/32, ... of the image
    decoder_channels: tuple[int, int, int]  # at 1/8, 1/4, 1/2
    decoder_blocks: int
    norm: Norm
    act: Activation


PIXELS = 12  # RGB of the 2 x 2 pixels that make one at half size


class Context(nn.Module):
    """What a scene is: coarser and coarser features, attention over all of it, and back up.

    Both streams and the fusion network need it (how much light there was, what is a person), so it
    is computed once a frame, whatever K is.
    """

    def __init__(self, channels: int, widths: list[int], norm: Norm, act: Activation) -> None:
        super().__init__()
        above = [channels, *widths[:-1]]
        self.act = activation(act)
        self.shrink = nn.ModuleList(
            conv3(a, w, stride=2) for a, w in zip(above, widths, strict=True)
        )
        self.down = nn.ModuleList(ResidualBlock(w, w, None, norm, act) for w in widths)
        self.attention = Attention(widths[-1], 4, norm)
        self.grow = nn.ModuleList(nn.Conv2d(w, a, 1) for a, w in zip(above, widths, strict=True))
        self.up = nn.ModuleList(ResidualBlock(a, a, None, norm, act) for a in above)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape; h and w divide by 2 as often as there are widths."""
        skips = [x]
        for shrink, block in zip(self.shrink, self.down, strict=True):
            skips.append(block(self.act(shrink(skips[-1]))))
        h: Tensor = self.attention(skips.pop())
        for grow, block in zip(reversed(self.grow), reversed(self.up), strict=True):
            h = F.interpolate(grow(h), scale_factor=2, mode="nearest")
            h = block(h + skips.pop())
        return h


class Encoder(nn.Module):
    """Image to latent, condition and details."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c, d = config.condition_channels, config.detail_channels
        norm, act = config.norm, config.act
        self.act = activation(act)
        self.stem = conv3(2 * PIXELS, d, stride=2)
        self.fine = ResidualBlock(d, d, None, norm, act)
        self.down = conv3(d, c, stride=2)
        self.coarse = nn.Sequential(
            *[ResidualBlock(c, c, None, norm, act) for _ in range(config.encoder_blocks)]
        )
        self.context = Context(c, config.context_channels, norm, act)
        self.latent = nn.Conv2d(c, config.latent_channels, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map an image in [0, 1] to local features at 1/8, 1/4 and 1/2."""
        pixels = F.pixel_unshuffle(image - 0.5, 2)
        # A night image lies within the lowest ten of 255 codes: its fourth root spreads them.
        lifted = F.pixel_unshuffle(image.sqrt().sqrt() - 0.5, 2)
        fine = self.act(self.fine(self.stem(torch.cat([pixels, lifted], dim=1))))
        return self.act(self.coarse(self.down(fine))), fine, pixels

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map an image in [0, 1] to (condition 1/8, detail 1/4, detail 1/2)."""
        local, fine, pixels = self.features(image)
        return self.context(local), fine, pixels

    def encode(self, image: Tensor) -> Tensor:
        """Map an image in [0, 1] to its latent (B, L, H/8, W/8) in [-1, 1]."""
        return torch.tanh(self.latent(self.features(image)[0]))


class Decoder(nn.Module):
    """Latent and details to image."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        a, b, c = config.decoder_channels
        self.act = activation(config.act)
        self.inlet = conv3(config.latent_channels, a)
        self.coarse = nn.Sequential(
            *[
                # It serves three kinds of images: one set of batch statistics fits none.
                ResidualBlock(a, a, None, "none", config.act)
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
