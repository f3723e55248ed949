# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Losses between images (B, C, H, W), float32, nominally in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.losses.config import HeatConfig, LossConfig


def sobel(image: Tensor) -> Tensor:
    """Return |gx| + |gy| of every channel, same shape."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    # Sums of slices, as torch takes five times as long for a convolution of a single channel.
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    across = rows[..., 2:] - rows[..., :-2]
    down = columns[..., 2:, :] - columns[..., :-2, :]
    return (across.abs() + down.abs()) / 4


def luma(image: Tensor) -> Tensor:
    """Return Y of BT.601 from RGB, (B, 1, H, W)."""
    return 0.299 * image[:, 0:1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:3]


def chroma(image: Tensor) -> Tensor:
    """Return Cb and Cr of BT.601, zero-centred, (B, 2, H, W)."""
    y = luma(image)
    return torch.cat([(image[:, 2:3] - y) * 0.564, (image[:, 0:1] - y) * 0.713], 1)


def weighted_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of |a - b|; `weight` broadcasts; 0 if all weights are 0."""
    return _mean_abs(a - b, weight)


def _mean_abs(x: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand(-1, -1, *x.shape[-2:])
    return (x.abs() * weight).sum() / (weight.sum() * x.shape[1]).clamp_min(1.0)


def detail_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return L1 plus L1 of gradients at full and half size: keeps edges that L1 alone would lose.

    `weight` is (B, 1, 1, 1) or (B, 1, H, W).
    """
    return _mean_abs(a - b, weight) + edge_l1(a, b, weight)


def edge_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return the L1 of gradients at full and half size; `weight` as in `detail_l1`."""
    full = a - b  # a gradient is linear: the gradient of the difference
    half = F.avg_pool2d(full, 2)
    half_weight = F.avg_pool2d(weight, 2) if weight.shape[-1] > 1 else weight
    return _gradient_l1(full, weight) + _gradient_l1(half, half_weight)


def coarse_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return L1 of means over 16 x 16 pixels: exposure, the largest error of a dark image.

    `weight` is (B, 1, 1, 1).
    """
    return _mean_abs(F.avg_pool2d(a - b, 16), weight)


def _gradient_l1(x: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand(-1, -1, *x.shape[-2:])
    across = (x[..., 2:] - x[..., :-2]).abs() * weight[..., 1:-1]
    down = (x[..., 2:, :] - x[..., :-2, :]).abs() * weight[..., 1:-1, :]
    return (across.sum() + down.sum()) / (weight.sum() * x.shape[1]).clamp_min(1.0)


def fused_luma(
    visible: Tensor,
    thermal: Tensor,
    heat: HeatConfig | None,
    day: Tensor,
    people: Tensor | float = 1.0,
) -> Tensor:
    """Return the target luma (B, 1, H, W) of a fused image, in [0, 1].

    The maximum of visible and thermal (Eq. 15, `heat` None) leaves most people unchanged: in
    thermal images they are rarely brighter than a street by day, or a restored night street, is in
    visible images. With `heat`, the excess of the thermal image over a street's level is added,
    limited to `heat.limit`, in proportion to `people` (B, 1, H, W), in [0, 1]. `visible` is (B, 3,
    H, W), `thermal` (B, 1, H, W), `day` (B,) bool.
    """
    y = luma(visible)
    if heat is None:
        return torch.maximum(y, thermal)
    warm, times = (
        torch.where(day, by_day, at_night)[:, None, None, None]
        for by_day, at_night in ((heat.warm, heat.warm_at_night), (1.0, heat.at_night))
    )
    gained = (times * heat.gain * (thermal - warm)).clamp(0, heat.limit)
    return (y + people * gained).clamp(max=1)


def fusion_loss(
    fused: Tensor,
    visible: Tensor,
    thermal: Tensor,
    day: Tensor,
    weights: LossConfig,
    people: Tensor | float = 1.0,
) -> Tensor:
    """Return Eq. 15: contrast, texture and colour of a fused RGB image, a scalar.

    visible: RGB; thermal: (B, 1, H, W); day: (B,) bool. Contrast and texture follow the stronger of
    the two or, with `weights.heat`, the visible image with heat (see `fused_luma`). Light in a
    wrong place then costs extra.
    """
    heat, y, y_visible = weights.heat, luma(fused), luma(visible)
    target = fused_luma(visible, thermal, heat, day, people)
    if heat is not None:
        edges = sobel(target)
        strong = 1 + heat.weight * (target - y_visible).relu()
        false = heat.false_light * F.relu(y - target - heat.slack).mean()
    else:
        edges = torch.maximum(sobel(y_visible), sobel(thermal))
        strong, false = torch.ones_like(y), y.new_zeros(())
    contrast, texture = weighted_l1(y, target, strong), weighted_l1(sobel(y), edges, strong)
    colour = 2 * (chroma(fused) - chroma(visible)).abs().mean()  # the mean of Cb's and Cr's
    published = weights.contrast * contrast + weights.texture * texture + weights.colour * colour
    return published + false
