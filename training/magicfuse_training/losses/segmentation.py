"""Eq. 16, with labels that know less than a class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.data.classes import LOOKALIKE, MOVING, STATIC

_LOOKALIKE_WEIGHT = 8.0  # they are few: in 27 of MSRS's 249 training frames


def segmentation_loss(logits: Tensor, label: Tensor, class_weights: Tensor) -> Tensor:
    """Return the cross entropy of logits (B, C, h, w) against label (B, h, w), a scalar.

    A STATIC pixel costs minus the log of the summed probability of all classes but the moving ones
    (only labels in the project's classes have such pixels: in MFNet's they are a class of their
    own), a LOOKALIKE pixel the same at a higher weight; an IGNORE pixel costs nothing.
    """
    log_p = logits.float().log_softmax(1)
    known = label < LOOKALIKE
    ids = label.where(known, torch.zeros_like(label))
    weights = class_weights.to(label.device)[ids] * known
    exact = -(log_p.gather(1, ids[:, None])[:, 0] * weights).sum() / weights.sum().clamp_min(1.0)
    static = (label == STATIC) + _LOOKALIKE_WEIGHT * (label == LOOKALIKE)
    log_static = log_p[:, : MOVING[0]].logsumexp(1)  # the moving classes are the last ones
    negative = -(log_static * static).sum() / static.sum().clamp_min(1)
    return exact + negative


def resize_label(label: Tensor, size: torch.Size) -> Tensor:
    """Bring a label (B, H, W) int64 to `size` (h, w) by nearest neighbour."""
    return F.interpolate(label[:, None].float(), size=size, mode="nearest")[:, 0].long()


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean soft Dice loss over the classes present: lifts small and rare classes.

    logits: (B, C, h, w); label: (B, h, w) int64.
    """
    known = label < LOOKALIKE
    p = logits.float().softmax(1) * known[:, None]
    target = F.one_hot(label.where(known, torch.zeros_like(label)), logits.shape[1])
    target = target.permute(0, 3, 1, 2).float() * known[:, None]
    dims = (0, 2, 3)
    overlap, total, present = (p * target).sum(dims), (p + target).sum(dims), target.sum(dims) > 0
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return (dice * present).sum() / present.sum().clamp_min(1)
