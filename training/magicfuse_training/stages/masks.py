# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A stage for the masks alone: everything else keeps computing what it computed before.

The gradients of the masks are mostly noise at the batches that a CPU manages, and the other losses
add theirs. Here the other outputs have exact targets instead: the latents and the weight w of the
model that the stage starts with. No image is decoded, so a crop costs half as much as in
`few_step`. The decoder and the details that it reads stay as they are.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.data.crops import Batch
from magicfuse_training.model import MagicFuse
from magicfuse_training.stages.head import head_loss, scores
from magicfuse_training.stages.stage import Loss

# These include all parts of the encoder that the decoder does not read.
TRAINED = (
    "encoder.down", "encoder.coarse", "encoder.context", "ikr", "ckg", "mkf", "segmentation",
)  # fmt: skip
# Weight of squared errors of latents and w. An error of 0.03 in a latent then weighs 0.1, whereas
# masks weigh 6, and changes a decoded image by 0.004.
HELD = 100.0


def masks_loss(start: MagicFuse) -> Loss:
    """Return the loss: the masks, and the distance of latents and w from those of `start`.

    `start` is copied.
    """
    before = copy.deepcopy(start).eval().requires_grad_(False)

    def loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
        weights = model.preset.losses.output
        assert weights is not None, "stages of a preset without it are refused before"
        before.to(batch["degraded"].device)
        degraded = model.encoder.scaled(batch["degraded"])
        count = model.preset.default_steps
        tau = degraded.new_ones(1)  # w then does not depend on the mask
        with torch.no_grad():
            condition = before.encoder.condition_and_details(degraded)[0]
            noise = model.start(condition)
            wanted = before.sample(noise, condition, count, tau)
        condition, fine = model.encoder.condition_and_details(degraded)
        found = model.sample(noise, condition, count, tau)
        assert found.x0_ikr is not None and found.x0_ckg is not None and found.w is not None
        assert wanted.x0_ikr is not None and wanted.x0_ckg is not None and wanted.w is not None
        logits = scores(model, found.z_seg, condition, [fine])
        return {
            "segmentation": weights.segmentation * head_loss(model, found.z_seg, logits, batch),
            "restored": HELD * F.mse_loss(found.x0_ikr, wanted.x0_ikr),
            "thermal": HELD * F.mse_loss(found.x0_ckg, wanted.x0_ckg),
            "weight": HELD * F.mse_loss(found.w, wanted.w),
        }

    return loss
