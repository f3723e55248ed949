# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Attention over all pixels of a feature map.

The scores are never all stored if there are many pixels. Torch's fused kernel works on tiles of
them. It needs the channels of a token side by side in memory; otherwise it silently computes all
scores. An exported graph has no such kernel and computes the scores of one slice of the pixels at a
time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.blocks import Norm, normalisation, zero_init

MANY_TOKENS = 1024  # 4 MB of scores per head; below that, the copy costs more than it saves
SLICE = 1024  # queries; the scores of 19,200 tokens take 79 MB per head, all of them 1.5 GB


class Attention(nn.Module):
    """Global self-attention over the pixels of a feature map, residual."""

    def __init__(
        self, channels: int, heads: int, norm: Norm, eps: float = 1e-5, bias: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = normalisation(norm, channels, eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        b, c, h, w = x.shape
        maps = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        tokens = maps.transpose(3, 4)
        if h * w > MANY_TOKENS:
            tokens = tokens.contiguous()
        q, k, v = tokens.unbind(1)  # (B, heads, HW, C / heads)
        slices = [q[:, :, i : i + SLICE] for i in range(0, h * w, SLICE)]
        y = torch.cat([F.scaled_dot_product_attention(part, k, v) for part in slices], dim=2)
        total: Tensor = x + self.out(y.transpose(2, 3).reshape(b, c, h, w))
        return total


class TokenAttention(nn.Module):
    """Self-attention over tokens; not residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to the same shape."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).unbind(2)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, n, c))
        return out


class TransformerBlock(nn.Module):
    """The published U-Nets' attention: two self-attentions and a GEGLU layer, residual.

    It is latent diffusion's block (arXiv 2112.10752) without a text to attend to: its former
    cross-attention attends to the image a second time. GEGLU: arXiv 2002.05202.
    """

    def __init__(self, channels: int, heads: int, norm: Norm) -> None:
        super().__init__()
        self.norm = normalisation(norm, channels)
        self.inlet = nn.Conv2d(channels, channels, 1)
        self.norm1 = nn.LayerNorm(channels)
        self.attention1 = TokenAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attention2 = TokenAttention(channels, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 8 * channels)  # 4 times the width, and as many gates
        self.narrow = nn.Linear(4 * channels, channels)
        self.outlet = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        b, c, h, w = x.shape
        tokens = self.inlet(self.norm(x)).flatten(2).transpose(1, 2)  # (B, HW, C)
        tokens = tokens + self.attention1(self.norm1(tokens))
        tokens = tokens + self.attention2(self.norm2(tokens))
        wide = self.widen(self.norm3(tokens))
        tokens = tokens + self.narrow(wide[..., : 4 * c] * F.gelu(wide[..., 4 * c :]))
        total: Tensor = x + self.outlet(tokens.transpose(1, 2).reshape(b, c, h, w))
        return total
