# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The fusion network F (mkf) with the recurrent half of the segmentation head.

From the one-step estimates of both streams it predicts w, the weight that mixes their noise (Eq. 8,
9). It also reads features at ten depths that update the segmentation state z_seg (Eq. 10); with
`readout`, the condition is added to them.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.attention import Attention
from magicfuse_training.networks.blocks import (
    Activation,
    Norm,
    ResidualBlock,
    Sinusoid,
    TimeEmbedding,
    conv3,
    convolve,
    zero_init,
)


class FusionConfig(BaseModel):
    """Layers of the fusion network: `widths[i]` channels at 1/`scales[i]` of the latent size.

    The published network sets every field that has a default.
    """

    model_config = ConfigDict(extra="forbid")

    widths: list[int]
    scales: list[int]
    attention: list[bool]
    blocks: int  # residual blocks per layer
    time_channels: int
    norm: Norm
    act: Activation
    norm_eps: float = 1e-5  # for group norms
    sinusoid: Sinusoid = "cos_sin"
    inlet_act: bool = False  # SiLU after the first convolution
    mlp_ratio: int = 1  # hidden channels of a layer's mlp / its width
    attention_bias: bool = False
    segproj_kernel: Literal[1, 3] = 1
    estimate_channels: int | None = None  # hidden channels of the last layer; None: the latent's
    weight: Literal["sigmoid", "unbounded"] = "sigmoid"  # as in the paper; or as in the release
    condition: bool = False  # F also sees the streams' condition: masks need more than estimates
    # z_seg also reads the condition directly; otherwise masks are learnt through all of F.
    readout: bool = False
    # M of Eq. 11: 1 if the best class is a thermal one, as published; or the probability of the
    # thermal classes, so that most of the restored image stays where F is uncertain.
    thermal_mask: Literal["argmax", "probability"] = "argmax"

    @model_validator(mode="after")
    def _readout_of_the_condition(self) -> FusionConfig:
        if self.readout and not self.condition:
            raise ValueError("readout is true, and reads the condition: condition must be true")
        return self


class FusionLayer(nn.Module):
    """Residual blocks, then the mixed-in predictions of the streams, then optional attention."""

    def __init__(self, inputs: int, width: int, attention: bool, config: FusionConfig, latent: int):
        super().__init__()
        time, norm, act, eps = config.time_channels, config.norm, config.act, config.norm_eps
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs if i == 0 else width, width, time, norm, act, eps)
            for i in range(config.blocks)
        )
        hidden = config.mlp_ratio * width
        self.mlp = nn.Sequential(
            nn.Conv2d(width + 2 * latent, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, width, 1)
        )
        self.attention = (
            Attention(width, 1, norm, eps, config.attention_bias) if attention else nn.Identity()
        )

    def forward(self, h: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features after the residual blocks and after the attention."""
        for block in self.blocks:
            h = block(h, time)
        return h, self.attention(self.mlp(torch.cat([h, noise], dim=1)))


class FusionNetwork(nn.Module):
    """F and the chain that turns its features into the segmentation state."""

    def __init__(
        self, config: FusionConfig, condition_channels: int, latent_channels: int, classes: int
    ) -> None:
        super().__init__()
        self.scales = config.scales
        self.sees_condition = config.condition
        self.bounded = config.weight == "sigmoid"
        self.time = TimeEmbedding(config.widths[0], config.time_channels, config.sinusoid)
        seen = condition_channels if config.condition else 0
        self.inlet = conv3(3 * latent_channels + seen, config.widths[0])
        self.inlet_act = nn.SiLU() if config.inlet_act else nn.Identity()
        inputs = [config.widths[0], *config.widths[:-1]]
        self.layers = nn.ModuleList(
            FusionLayer(i, w, a, config, latent_channels)
            for i, w, a in zip(inputs, config.widths, config.attention, strict=True)
        )
        self.projections = nn.ModuleList()  # for layers that add an earlier layer of the same scale
        for i, scale in enumerate(self.scales):
            j = self._partner(i, scale)
            self.projections.append(
                nn.Conv2d(config.widths[j], inputs[i], 1) if j is not None else nn.Identity()
            )
        self.segproj_kernel = kernel = config.segproj_kernel
        self.segproj = nn.ModuleList(
            nn.Conv2d(w + classes, classes, kernel, padding=kernel // 2)
            for w in config.widths
            for _ in range(2)
        )
        self.normout = nn.Conv2d(config.widths[-1], latent_channels, 1)
        self.readout = (
            zero_init(nn.Conv2d(condition_channels, classes, 1)) if config.readout else None
        )
        hidden = config.estimate_channels or latent_channels
        self.estimate = nn.Sequential(
            conv3(3 * latent_channels, hidden), conv3(hidden, latent_channels)
        )

    def _partner(self, i: int, scale: int) -> int | None:
        """Return the layer that skips to i, if i goes back up to an earlier scale, else None."""
        if i and self.scales[i - 1] > scale and scale in self.scales[:i]:
            return max(j for j in range(i) if self.scales[j] == scale)
        return None

    def forward(
        self,
        x0_ikr: Tensor,
        x0_ckg: Tensor,
        z: Tensor,
        noise: Tensor,
        z_seg: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (w, next z_seg).

        x0_ikr, x0_ckg, z: (B, L, h, w); noise: both streams' noise or velocity, (B, 2L, h, w);
        z_seg: (B, classes, h, w); t: (B,); condition: (B, C, h, w), the streams' condition,
        required if the config uses it. w: (B, L, h, w), the paper's weight, with a value for each
        latent channel; in [0, 1], or any number if the preset leaves it unbounded.
        """
        time = self.time(t)
        seen = [x0_ikr, x0_ckg, z]
        if self.sees_condition:
            assert condition is not None
            seen.append(condition)
        h = self.inlet_act(convolve(self.inlet, seen, separate=2))
        outputs: list[Tensor] = []
        features: list[Tensor] = []
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
            features += [tap, h]
        w = self.estimate(torch.cat([self.normout(h), noise], dim=1))
        z_seg = self._next_state(features, z_seg)
        if self.readout is not None:
            assert condition is not None
            z_seg = z_seg + self.readout(condition)
        return torch.sigmoid(w) if self.bounded else w, z_seg

    def _next_state(self, features: list[Tensor], z_seg: Tensor) -> Tensor:
        """Return z_seg after all of S's projections; coarse features are enlarged."""
        if self.segproj_kernel == 1:
            return self._next_state_at_once(features, z_seg)
        for projection, h in zip(self.segproj, features, strict=True):
            z_seg = projection(torch.cat([_enlarge(h, z_seg.shape[-2:]), z_seg], dim=1))
        return z_seg

    def _next_state_at_once(self, features: list[Tensor], z_seg: Tensor) -> Tensor:
        """Combine 1x1 projections, each z -> A h + B z + b, into one: they are linear.

        The k-th features contribute B_n ... B_(k+1) A_k h_k. Their scores are enlarged instead of
        the features, because there are fewer scores.
        """
        size = z_seg.shape[-2:]
        parts: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}  # input and its weights, by size
        onward: Tensor | None = None  # product of the B of the following projections
        total = z_seg.new_zeros(z_seg.shape[1])  # bias
        for projection, h in zip(reversed(self.segproj), reversed(features), strict=True):
            conv = cast(nn.Conv2d, projection)
            assert conv.bias is not None
            weight, bias, width = conv.weight[:, :, 0, 0], conv.bias, h.shape[1]
            if onward is not None:
                weight, bias = onward @ weight, onward @ bias
            parts.setdefault(h.shape[-2:], []).append((h, weight[:, :width]))
            total = total + bias
            onward = weight[:, width:]
        assert onward is not None
        total = F.conv2d(z_seg, onward[:, :, None, None], total)  # separate, as in `convolve`
        for pairs in parts.values():
            inputs = torch.cat([h for h, _ in pairs], dim=1)
            weights = torch.cat([w for _, w in pairs], dim=1)[:, :, None, None]
            total = total + _enlarge(F.conv2d(inputs, weights), size)
        return total


def _enlarge(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class SegmentationHead(nn.Module):
    """The last half of S: class scores from the state, refined if there are details.

    A refined head may also read the condition: what a pixel is takes more than one score a class.
    The exported confidence is the softmax of the scores divided by `temperature`, which only a
    refined head has: see `stages/temperature.py`.
    """

    temperature: Tensor

    def __init__(
        self,
        classes: int,
        detail_channels: int,
        width: int,
        act: nn.Module,
        scale: int,
        condition_channels: int = 0,
    ) -> None:
        """Make a head.

        With `width` 0, scores are the state, enlarged `scale` times, and nothing is trained. With
        `condition_channels` 0, a refined head does not read the condition.
        """
        super().__init__()
        self.refined = width > 0
        self.scale = scale
        self.act = act
        if self.refined:
            self.conv1 = conv3(classes + detail_channels, width)
            self.conv2 = conv3(width, classes)
            self.scene = zero_init(conv3(condition_channels, width)) if condition_channels else None
            self.register_buffer("temperature", torch.ones(1))

    def forward(
        self, z_seg: Tensor, detail_4: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """Map z_seg (B, classes, h, w) to scores (B, classes, ...).

        With details (B, D, H/4, W/4), which the refined head requires, scores have their size;
        otherwise they are at H, W. The condition (B, C, h, w) is needed by a head that reads it.
        """
        if not self.refined:
            return F.interpolate(
                z_seg, scale_factor=self.scale, mode="bilinear", align_corners=False
            )
        assert detail_4 is not None
        coarse = F.interpolate(z_seg, scale_factor=2, mode="bilinear", align_corners=False)
        h = self.conv1(torch.cat([coarse, detail_4], dim=1))
        if self.scene is not None:
            assert condition is not None
            h = h + F.interpolate(self.scene(condition), scale_factor=2, mode="nearest")
        refined: Tensor = self.conv2(self.act(h))
        return coarse + refined
