"""Losses between images (B, C, H, W), float32, nominally in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4


def sobel(image: Tensor) -> Tensor:
    """Return |gx| + |gy| of every channel, same shape."""
    c = image.shape[1]
    kernel = torch.stack([_SOBEL, _SOBEL.T])[:, None].to(image)
    kernel = kernel.repeat(c, 1, 1, 1)  # (2C, 1, 3, 3)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    with torch.autocast(image.device.type, enabled=False):  # differences of near equals
        g = F.conv2d(padded, kernel, groups=c).abs()
    return g[:, 0::2] + g[:, 1::2]


def luma(image: Tensor) -> Tensor:
    """Return Y of BT.601 from RGB, (B, 1, H, W)."""
    return 0.299 * image[:, 0:1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:3]


def chroma(image: Tensor) -> Tensor:
    """Return Cb and Cr of BT.601, zero-centred, (B, 2, H, W)."""
    y = luma(image)
    return torch.cat([(image[:, 2:3] - y) * 0.564, (image[:, 0:1] - y) * 0.713], 1)


def weighted_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return mean |a - b| under a weight that broadcasts; 0 where all weights are 0."""
    weight = weight.expand(a.shape)
    return ((a - b).abs() * weight).sum() / weight.sum().clamp_min(1.0)


def detail_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return L1 plus L1 of gradients at full and half size: keeps edges that L1 alone gives up."""
    loss = weighted_l1(a, b, weight) + weighted_l1(sobel(a), sobel(b), weight)
    half_a, half_b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    half_w = F.avg_pool2d(weight, 2) if weight.shape[-1] > 1 else weight
    return loss + weighted_l1(sobel(half_a), sobel(half_b), half_w)


def fusion_loss(fused: Tensor, visible: Tensor, thermal: Tensor) -> Tensor:
    """Return Eq. 15: contrast, texture and colour of a fused RGB image, a scalar.

    visible: RGB; thermal: (B, 1, H, W). Contrast and texture follow the stronger of the two.
    """
    y, y_visible = luma(fused), luma(visible)
    contrast = (y - torch.maximum(y_visible, thermal)).abs().mean()
    texture = (sobel(y) - torch.maximum(sobel(y_visible), sobel(thermal))).abs().mean()
    colour = (chroma(fused) - chroma(visible)).abs().mean()
    return contrast + texture + colour
