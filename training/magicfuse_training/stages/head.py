# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The segmentation head's scores and its loss, which several stages share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.data.classes import IGNORE
from magicfuse_training.data.crops import Batch
from magicfuse_training.losses.segmentation import dice_loss, resize_label, segmentation_loss
from magicfuse_training.model import MagicFuse

# Takes a model, its segmentation state, its scores and a batch.
HeadLoss = Callable[[MagicFuse, Tensor, Tensor, Batch], Tensor]


def scores(model: MagicFuse, z_seg: Tensor, condition: Tensor, details: list[Tensor]) -> Tensor:
    """Return the head's scores at the exported head's size for its decision: 1/2 if refined."""
    logits = model.class_scores(z_seg, condition, *details).float()
    if model.segmentation.refined:
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
    return logits


def head_loss(model: MagicFuse, z_seg: Tensor, logits: Tensor, batch: Batch) -> Tensor:
    """Return Eq. 16 for the scores and, with a lower weight, for the state behind them."""
    weights, label = model.preset.losses, batch["label"]
    by_day = label.new_tensor(weights.class_weights, dtype=torch.float32)
    at_night = by_day.new_tensor(weights.class_weights_at_night or weights.class_weights)
    night = batch["has_clean"] < 1  # those crops have a stand-in for their clean image
    class_weights = torch.where(night[:, None], at_night, by_day)
    fine = resize_label(label, logits.shape[-2:])
    loss = segmentation_loss(logits, fine, class_weights)
    if weights.dice:
        loss = loss + weights.dice * dice_loss(logits, fine)
    taught = (batch["teacher"] != IGNORE).flatten(1).any(1)
    if weights.teacher and taught.any():  # few images have a teacher's label
        theirs = resize_label(batch["teacher"][taught], logits.shape[-2:])
        loss = loss + weights.teacher * segmentation_loss(
            logits[taught], theirs, class_weights[taught]
        )
    if weights.state:
        coarse = resize_label(label, z_seg.shape[-2:])
        loss = loss + weights.state * segmentation_loss(z_seg, coarse, class_weights)
    return loss
