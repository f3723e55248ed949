# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A model's outputs for a few images on one sheet, to show what losses do not tell."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.contact_sheet import contact_sheet
from magicfuse_ros.overlay import overlay
from magicfuse_training.data.crops import Batch
from magicfuse_training.model import MagicFuse

TITLES = ("Degraded", "Clean", "Autoencoded", "Restored", "Thermal estimate", "MagImg", "Classes")


@torch.no_grad()
def draw_pictures(model: MagicFuse, batch: Batch) -> Pixels:
    """Return a sheet (H, W, 3) RGB uint8: a row for each image, a column for each title.

    `model` is in evaluation mode; `batch` comes from `to_device`. K is the preset's default.
    """
    preset, classes = model.preset, model.preset.classes
    degraded, clean = batch["degraded"], batch["clean"]
    condition, *details = model.encoder(degraded)
    tau = torch.full((1,), preset.tau, device=degraded.device)
    streams = model.sample(model.start(condition), condition, preset.default_steps, tau)
    assert streams.x0_ikr is not None and streams.x0_ckg is not None and streams.x0_mkf is not None
    latents = (model.encoder.encode(clean), streams.x0_ikr, streams.x0_ckg, streams.x0_mkf)
    decoded = [model.decoder(latent, *details) for latent in latents]
    columns = [_images(x) for x in (degraded, clean, *decoded)]
    scores = model.class_scores(streams.z_seg, condition, *details)
    scores = F.interpolate(scores, size=degraded.shape[-2:], mode="bilinear", align_corners=False)
    masks = scores.argmax(1).to(torch.uint8).cpu().numpy()
    columns.append(
        [overlay(i, m, classes, alpha=1.0) for i, m in zip(columns[0], masks, strict=True)]
    )
    rows = [(f"{i + 1}", row) for i, row in enumerate(zip(*columns, strict=True))]
    return contact_sheet(rows, TITLES, legend=[(c.name, c.color) for c in classes])


def _images(x: Tensor) -> list[Pixels]:
    """Convert (B, 3, H, W) float in [0, 1] to RGB uint8 images."""
    return list((x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
