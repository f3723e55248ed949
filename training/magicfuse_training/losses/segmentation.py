# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Eq. 16, with labels that may know less than a class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.data.classes import CLASSES, LOOKALIKE, NOBODY, SETS, STATIC

_LOOKALIKE_WEIGHT = 8.0  # lookalikes are rare: they occur in 27 of MSRS's 249 training frames
_IDS = 256


def segmentation_loss(logits: Tensor, label: Tensor, class_weights: Tensor) -> Tensor:
    """Return the cross entropy of logits (B, C, h, w) against label (B, h, w), a scalar.

    class_weights: (C,) for all images, or (B, C).

    If only a set of classes is known for a pixel, its cost is minus the log of their summed
    probability, at the lowest of their weights, because it says little about the rare ones. Only
    labels in the project's classes have such pixels. Ids that merely exclude classes (STATIC,
    NOBODY, LOOKALIKE) are averaged separately, because they cover most pixels of the images in
    which they occur. LOOKALIKE weighs more. An IGNORE pixel costs nothing.
    """
    log_p = logits.float().log_softmax(1)
    each = class_weights.expand(len(label), -1)
    allowed, weights = (t.to(label.device) for t in _tables(each, logits.shape[1]))
    excluded = torch.where(allowed, 0.0, -torch.inf)[label].permute(0, 3, 1, 2)
    cost = -(log_p + excluded).logsumexp(1)
    weight = weights.gather(1, label.flatten(1)).reshape(label.shape)
    excluding = (label == STATIC) | (label == NOBODY)
    negative = excluding.float() + _LOOKALIKE_WEIGHT * (label == LOOKALIKE)
    return _mean(cost, weight) + _mean(cost, negative)


def _mean(cost: Tensor, weight: Tensor) -> Tensor:
    return (cost * weight).sum() / weight.sum().clamp_min(1.0)


def _tables(class_weights: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the classes that each label id allows, (256, C) bool, and its weights, (B, 256).

    An unknown pixel allows all classes, so it costs nothing.
    """
    allowed = torch.ones(_IDS, classes, dtype=torch.bool)
    weights = torch.zeros(len(class_weights), _IDS)
    allowed[:classes] = torch.eye(classes, dtype=torch.bool)
    weights[:, :classes] = class_weights.cpu().float()
    if classes == len(CLASSES):
        for i, some in SETS.items():
            allowed[i] = False
            allowed[i, list(some)] = True
            if i not in (STATIC, NOBODY, LOOKALIKE):
                weights[:, i] = weights[:, list(some)].amin(1)
    return allowed, weights


def resize_label(label: Tensor, size: torch.Size) -> Tensor:
    """Shrink a label (B, H, W) int64 to `size` (h, w), which divides it.

    Each cell takes the class of one of its pixels, drawn at random on every call. Always taking the
    same pixel would shift the label.
    """
    down, across = (n // m for n, m in zip(label.shape[1:], size, strict=True))
    row, column = int(torch.randint(down, ())), int(torch.randint(across, ()))
    return label[:, row::down, column::across]


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean soft Dice loss over the classes present: helps small and rare classes.

    logits: (B, C, h, w); label: (B, h, w) int64.
    """
    known = label < logits.shape[1]
    p = logits.float().softmax(1) * known[:, None]
    target = F.one_hot(label.where(known, torch.zeros_like(label)), logits.shape[1])
    target = target.permute(0, 3, 1, 2).float() * known[:, None]
    dims = (0, 2, 3)
    overlap, total, present = (p * target).sum(dims), (p + target).sum(dims), target.sum(dims) > 0
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return (dice * present).sum() / present.sum().clamp_min(1)
