# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Building blocks that the five networks share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["group", "batch", "instance", "none"]
Activation = Literal["silu", "relu", "leaky_relu"]
Sinusoid = Literal["cos_sin", "sin_cos"]


def normalisation(kind: Norm, channels: int, eps: float = 1e-5) -> nn.Module:
    """Return a normalisation layer; batch norms fold into convolutions when a graph is compiled.

    Instance norms have no weights. `eps` applies to group norms.
    """
    if kind == "group":
        return nn.GroupNorm(32, channels, eps)
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels)
    return nn.Identity()


def activation(kind: Activation) -> nn.Module:
    """Return an activation layer."""
    if kind == "silu":
        return nn.SiLU()
    return nn.ReLU() if kind == "relu" else nn.LeakyReLU(0.2)


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size (or halves it with stride 2)."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def convolve(conv: nn.Conv2d, parts: Sequence[Tensor], separate: int) -> Tensor:
    """Convolve parts (B, any, h, w) by 3x3 as if concatenated; convolve part `separate` on its own.

    A single step starts from a constant; its separate convolution is then constant too.
    """
    ends = list(itertools.accumulate(part.shape[1] for part in parts))
    # Use slices: torch exports a split as a sequence, which few libraries fold.
    weights = [conv.weight[:, end - p.shape[1] : end] for p, end in zip(parts, ends, strict=True)]
    rest = [i for i in range(len(parts)) if i != separate]
    joined = torch.cat([parts[i] for i in rest], dim=1)
    weight = torch.cat([weights[i] for i in rest], dim=1)
    total: Tensor = F.conv2d(joined, weight, conv.bias, padding=1)
    return total + F.conv2d(parts[separate], weights[separate], padding=1)


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Zero the last layer of a residual branch, so that the branch starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class TimeEmbedding(nn.Module):
    """Sinusoid of a time step, then Linear, SiLU, Linear (DDPM, arXiv 2006.11239, Appendix B).

    Two forms are in use. `cos_sin` puts cosines first, with frequencies from 1 down to nearly
    1/10000. `sin_cos` puts sines first, and its last frequency is exactly 1/10000.
    """

    frequencies: Tensor

    def __init__(self, width: int, outputs: int, sinusoid: Sinusoid = "cos_sin") -> None:
        super().__init__()
        half = width // 2
        self.sines_first = sinusoid == "sin_cos"
        last = half - 1 if self.sines_first else half
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half) / last)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(width, outputs), nn.SiLU(), nn.Linear(outputs, outputs)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Map t (B,) float in 0 .. T-1 to (B, outputs)."""
        angle = t[:, None].float() * self.frequencies[None]
        waves = [angle.sin(), angle.cos()] if self.sines_first else [angle.cos(), angle.sin()]
        embedded: Tensor = self.layers(torch.cat(waves, dim=1))
        return embedded


def before_activation(kind: Norm, channels: int) -> nn.Module:
    """Return the normalisation between a block's output and the next activation, if any.

    Blocks with batch norms end with their own activation: see `ResidualBlock`.
    """
    return nn.Identity() if kind == "batch" else normalisation(kind, channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a time term, added to the (projected) input.

    The order depends on the norm:
    group, none   norm, act, conv; plus time; norm, act, conv; plus input (arXiv 1603.05027)
    batch         conv, norm; plus time, act; conv, norm; plus input, act (1512.03385): only a norm
                  that follows its convolution folds into it
    instance      conv, norm; plus time, act; conv, norm, act; plus input: the published autoencoder
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        time: int | None,
        norm: Norm,
        act: Activation,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.order = norm
        self.norm_last = norm in ("batch", "instance")
        self.norm1 = normalisation(norm, outputs if self.norm_last else inputs, eps)
        self.conv1 = conv3(inputs, outputs)
        self.time = nn.Linear(time, outputs) if time else None
        self.norm2 = normalisation(norm, outputs, eps)
        self.conv2 = conv3(outputs, outputs)
        # The block starts as the identity, so that a deep network passes its gradient on.
        if isinstance(self.norm2, nn.BatchNorm2d):
            nn.init.zeros_(self.norm2.weight)
        elif norm != "instance":  # it would amplify the first update of a zero output
            zero_init(self.conv2)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.act = activation(act)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Map x (B, inputs, H, W) and a time embedding (B, time) to (B, outputs, H, W)."""
        h = self.norm1(self.conv1(x)) if self.norm_last else self.conv1(self.act(self.norm1(x)))
        if self.time is not None and time is not None:
            h = h + self.time(F.silu(time))[:, :, None, None]
        total: Tensor
        if self.order == "batch":
            total = self.act(self.skip(x) + self.norm2(self.conv2(self.act(h))))
        elif self.order == "instance":
            total = self.skip(x) + self.act(self.norm2(self.conv2(self.act(h))))
        else:
            total = self.skip(x) + self.conv2(self.act(self.norm2(h)))
        return total
