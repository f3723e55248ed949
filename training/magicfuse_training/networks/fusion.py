"""The fusion network F (mkf) with the recurrent half of the segmentation head.

From the one-step estimates of both streams it predicts w, the weight that mixes their noise (Eq. 8,
9), and reads features at ten depths that update the segmentation state z_seg (Eq. 10).
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
    TimeEmbedding,
    conv3,
)


class FusionConfig(BaseModel):
    """Layers of the fusion network: `widths[i]` channels at 1/`scales[i]` of the latent size."""

    model_config = ConfigDict(extra="forbid")

    widths: list[int]
    scales: list[int]
    attention: list[bool]
    blocks: int  # residual blocks a layer
    time_channels: int
    norm: Norm
    act: Activation


class FusionLayer(nn.Module):
    """Residual blocks, the streams' predictions mixed in, then global attention if asked for."""

    def __init__(self, inputs: int, width: int, attention: bool, config: FusionConfig, latent: int):
        super().__init__()
        time, norm, act = config.time_channels, config.norm, config.act
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs if i == 0 else width, width, time, norm, act)
            for i in range(config.blocks)
        )
        self.mlp = nn.Sequential(
            nn.Conv2d(width + 2 * latent, width, 1), nn.SiLU(), nn.Conv2d(width, width, 1)
        )
        self.attention = Attention(width, 1, norm) if attention else nn.Identity()

    def forward(self, h: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features after the residual blocks and after the attention."""
        for block in self.blocks:
            h = block(h, time)
        return h, self.attention(self.mlp(torch.cat([h, noise], dim=1)))


class FusionNetwork(nn.Module):
    """F and the chain that turns its features into the segmentation state."""

    def __init__(self, config: FusionConfig, latent_channels: int, classes: int) -> None:
        super().__init__()
        self.scales = config.scales
        self.time = TimeEmbedding(config.widths[0], config.time_channels)
        self.inlet = conv3(3 * latent_channels, config.widths[0])
        inputs = [config.widths[0], *config.widths[:-1]]
        self.layers = nn.ModuleList(
            FusionLayer(i, w, a, config, latent_channels)
            for i, w, a in zip(inputs, config.widths, config.attention, strict=True)
        )
        self.projections = nn.ModuleList()  # where an earlier layer of the same scale adds in
        for i, scale in enumerate(self.scales):
            j = self._partner(i, scale)
            self.projections.append(
                nn.Conv2d(config.widths[j], inputs[i], 1) if j is not None else nn.Identity()
            )
        self.segproj = nn.ModuleList(
            nn.Conv2d(w + classes, classes, 1) for w in config.widths for _ in range(2)
        )
        self.normout = nn.Conv2d(config.widths[-1], latent_channels, 1)
        self.estimate = nn.Sequential(
            conv3(3 * latent_channels, latent_channels), conv3(latent_channels, latent_channels)
        )

    def _partner(self, i: int, scale: int) -> int | None:
        """Return the layer whose output skips to layer i: going up again to a scale seen before."""
        if i and self.scales[i - 1] > scale and scale in self.scales[:i]:
            return max(j for j in range(i) if self.scales[j] == scale)
        return None

    def forward(
        self, x0_ikr: Tensor, x0_ckg: Tensor, z: Tensor, noise: Tensor, z_seg: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (w in [0, 1], next z_seg).

        x0_ikr, x0_ckg, z: (B, L, h, w); noise: both streams' noise or velocity, (B, 2L, h, w);
        z_seg: (B, classes, h, w); t: (B,). w is the paper's, but each latent channel has its own.
        """
        time = self.time(t)
        h = self.inlet(torch.cat([x0_ikr, x0_ckg, z], dim=1))
        size = z.shape[-2:]
        outputs: list[Tensor] = []
        scale = 1
        for i, layer in enumerate(self.layers):
            if self.scales[i] > scale:
                h = F.avg_pool2d(h, self.scales[i] // scale)
            elif self.scales[i] < scale:
                h = F.interpolate(h, scale_factor=scale // self.scales[i], mode="nearest")
            scale = self.scales[i]
            if (j := self._partner(i, scale)) is not None:
                h = h + self.projections[i](outputs[j])
            pooled = noise if scale == 1 else F.avg_pool2d(noise, scale)
            tap, h = layer(h, pooled, time)
            outputs.append(h)
            for k, features in enumerate((tap, h)):
                if scale > 1:
                    features = F.interpolate(
                        features, size=size, mode="bilinear", align_corners=False
                    )
                z_seg = self.segproj[2 * i + k](torch.cat([features, z_seg], dim=1))
        w = self.estimate(torch.cat([self.normout(h), noise], dim=1))
        return torch.sigmoid(w), z_seg


class SegmentationHead(nn.Module):
    """The last half of S: class scores at 1/4 from the state at 1/8 and the image's details."""

    def __init__(self, classes: int, detail_channels: int, width: int, act: nn.Module) -> None:
        super().__init__()
        self.act = act
        self.conv1 = conv3(classes + detail_channels, width)
        self.conv2 = conv3(width, classes)

    def forward(self, z_seg: Tensor, detail_4: Tensor) -> Tensor:
        """Map z_seg (B, classes, H/8, W/8), details (B, D, H/4, W/4) to (B, classes, H/4, W/4)."""
        coarse = F.interpolate(z_seg, scale_factor=2, mode="bilinear", align_corners=False)
        refined: Tensor = self.conv2(self.act(self.conv1(torch.cat([coarse, detail_4], dim=1))))
        return coarse + refined
