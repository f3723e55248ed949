# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The stages of a bundle, in order: two phases of the paper, then few-step fine-tuning.

phase 1   autoencoder   images and back
          ikr, ckg      Eq. 7 in the latent space; the autoencoder is frozen
phase 2   mkf           Algorithm 1, Eq. 15 and 16; everything but F and S is frozen
then      one_step      the whole sampler at K = 1, trained on its output
          few_step      the same at every K of the preset
          masks         the masks alone, while all other outputs stay as they are
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_ros.bundle.schedule import ddim_steps
from magicfuse_training.data.classes import LOOKALIKE, PEOPLE, RIDERS
from magicfuse_training.data.crops import Batch
from magicfuse_training.diffusion import algebra
from magicfuse_training.losses.config import HeatConfig, ThermalLossConfig
from magicfuse_training.losses.image import (
    chroma,
    coarse_l1,
    detail_l1,
    fused_luma,
    fusion_loss,
    luma,
    weighted_l1,
)
from magicfuse_training.losses.thermal import (
    contrast_loss,
    read_estimate,
    thermal_loss,
    unseen_loss,
)
from magicfuse_training.model import MagicFuse
from magicfuse_training.optimizer import AdamWConfig
from magicfuse_training.stages import masks
from magicfuse_training.stages.head import HeadLoss, head_loss, scores
from magicfuse_training.stages.randomness import of_step
from magicfuse_training.stages.stage import Stage


def autoencoder_loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
    """Reconstruct clean, thermal and fused images from their latent and the degraded details."""
    clean, thermal = batch["clean"], batch["thermal"].expand(-1, 3, -1, -1)
    heat = model.preset.losses.heat
    has_clean, has_thermal = batch["has_clean"] == 1, batch["has_thermal"].bool()
    fused = clean + (fused_luma(clean, batch["thermal"], heat, has_clean) - luma(clean))
    draw = torch.rand(len(clean))
    as_thermal = has_thermal & ((draw < 0.5) | ~has_clean)
    as_fused = has_thermal & ~as_thermal & (draw < 0.75)
    target = torch.where(as_thermal[:, None, None, None], thermal, clean)
    target = torch.where(as_fused[:, None, None, None], fused.clamp(0, 1), target)
    latent = model.encoder.encode(target).float()
    latent = latent + model.preset.losses.latent_noise * torch.randn_like(latent)
    _, *details = model.encoder(batch["degraded"])
    image = model.decoder(latent, *details).float()
    weight = torch.where(as_thermal[:, None, None, None], batch["weight"].sqrt(), 1.0)
    return {"reconstruction": detail_l1(image, target, weight)}


def _diffusion_loss(
    model: MagicFuse, unet: nn.Module, batch: Batch, image: Tensor, weight: Tensor
) -> Tensor:
    """Return Eq. 7: the weighted squared error of the noise or, in its v form, of the velocity.

    t is uniform over all levels, except for a share `losses.on_grid` of the draws.
    """
    abar_all = torch.tensor(model.preset.schedule.alphas_cumprod(), dtype=torch.float32)
    with torch.no_grad():
        x0 = model.encoder.encode(image).float()
    condition = model.encoder(batch["degraded"])[0]
    grid = [t for k in model.preset.steps for t in model.preset.timesteps(k)]
    anywhere = torch.randint(0, len(abar_all), (len(x0),))
    on_grid = torch.tensor(random.choices(grid, k=len(x0)))
    t = torch.where(torch.rand(len(x0)) < model.preset.losses.on_grid, on_grid, anywhere)
    abar = abar_all[t][:, None, None, None]
    eps = torch.randn_like(x0)
    z = algebra.add_noise(x0, eps, abar)
    output = unet(condition, model.seen(z, abar), t.float()).float()
    target = eps if model.prediction == "epsilon" else algebra.velocity(x0, eps, abar)
    error = (output - target).square()
    mean: Tensor = (error * weight).sum() / (weight.sum() * x0.shape[1]).clamp_min(1.0)
    return mean


def ikr_loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
    """Eq. 7 for the stream that restores: (degraded, clean)."""
    weight = batch["has_clean"][:, None, None, None].expand(-1, 1, *_latent_size(model, batch))
    return {"ikr": _diffusion_loss(model, model.ikr, batch, batch["clean"], weight)}


def ckg_loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
    """Eq. 7 for the stream that estimates the thermal image: (degraded, thermal)."""
    weight = batch["has_thermal"][:, None, None, None]
    if model.preset.losses.weigh_people:
        weight = weight * F.avg_pool2d(batch["weight"], model.preset.autoencoder.scale)
    weight = weight.expand(-1, 1, *_latent_size(model, batch))
    target = batch["thermal"].expand(-1, 3, -1, -1)
    return {"ckg": _diffusion_loss(model, model.ckg, batch, target, weight)}


def _latent_size(model: MagicFuse, batch: Batch) -> tuple[int, int]:
    height, width = batch["clean"].shape[-2:]
    scale = model.preset.autoencoder.scale
    return height // scale, width // scale


def _people(
    model: MagicFuse, heat: HeatConfig, logits: Tensor, tau: Tensor, size: torch.Size
) -> Tensor:
    """Return how much MagImg should light up each pixel, (B, 1, H, W) in [0, 1].

    Where w is 1, Eq. 11 takes M (1 - tau) of the restored image's weight away, and F can light up
    by that much. F should therefore light up thermal pixels above some probability, which rises
    with tau.
    """
    ids = model.thermal_ids
    with torch.no_grad():
        mask = logits.softmax(1)[:, ids].sum(1, keepdim=True)
        mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
    taken = mask * (1 - tau[:, None, None, None]) / (1 - heat.middle_tau)
    return ((taken - heat.unlit) / (heat.lit - heat.unlit)).clamp(0, 1)


def _fusion_loss(
    model: MagicFuse,
    batch: Batch,
    images: tuple[Tensor, Tensor, Tensor],
    logits: Tensor | None,
    tau: Tensor,
) -> Tensor:
    """Return Eq. 15 of decoded images (restored, thermal, fused); no `logits`: heat of any class.

    Its visible and thermal images are D(z~_psi) and D(z~_phi), the outputs of both streams
    (Algorithm 1, lines 18 and 19), never the real images. With heat, the thermal image is the
    confident part of the estimate.
    """
    restored, thermal, fused = images
    day = batch["has_clean"] == 1
    visible = restored.detach().clamp(0, 1)
    estimate = read_estimate(thermal.detach(), model.preset.thermal_uncertainty)
    losses = model.preset.losses
    if losses.heat is None:
        return fusion_loss(fused, visible, estimate.mean.clamp(0, 1), day, losses)
    people: Tensor | float = 1.0
    if model.preset.mkf.thermal_mask == "probability" and logits is not None:
        people = _people(model, losses.heat, logits, tau, fused.shape[-2:])
    return fusion_loss(fused, visible, estimate.surely(), day, losses, people)


def _draw_tau(model: MagicFuse, count: int) -> Tensor:
    """Return tau for each sample (B,): the whole user range, if M is a probability."""
    heat = model.preset.losses.heat
    if heat is not None and model.preset.mkf.thermal_mask == "probability":
        return torch.empty(count).uniform_(*heat.taus)
    return torch.full((count,), model.preset.tau)


def mkf_loss(
    model: MagicFuse, batch: Batch, *, at_the_end: bool = False, semantics: bool = True
) -> dict[str, Tensor]:
    """Algorithm 1: a shared z_T, a random stop step, a gradient at that step only.

    With `at_the_end`, the stop step is always the last one. Without `semantics`, there is neither
    Eq. 16 nor the mask of Eq. 11, and the fused image's target does not depend on the head either.
    """
    preset = model.preset
    steps = ddim_steps(preset.schedule, preset.timesteps(of_step.choice(preset.steps)))
    stop = len(steps) - 1 if at_the_end else of_step.randrange(len(steps))
    count = len(batch["degraded"])
    tau = _draw_tau(model, count) if semantics else torch.ones(count)
    with torch.no_grad():
        condition, *details = model.encoder(batch["degraded"])
        streams = model.start(condition)
        for step in steps[:stop]:
            streams = model.advance(streams, condition, step, tau)
    streams = model.advance(streams, condition, steps[stop], tau)
    assert streams.x0_ikr is not None and streams.x0_ckg is not None and streams.x0_mkf is not None
    with torch.no_grad():
        restored = model.decoder(streams.x0_ikr, *details).float()
        estimate = model.decoder(streams.x0_ckg, *details).float()
    image = model.decoder(streams.x0_mkf, *details).float()
    images = restored, estimate, image
    if not semantics:
        return {"fusion": _fusion_loss(model, batch, images, None, tau)}
    logits = scores(model, streams.z_seg, condition, details)
    return {
        "fusion": _fusion_loss(model, batch, images, logits, tau),
        "segmentation": head_loss(model, streams.z_seg, logits, batch),
    }


def _of_classes(model: MagicFuse, label: Tensor, names: Sequence[str]) -> Tensor:
    """Return (B, 1, H, W) bool, true where a label (B, H, W) is one of the named classes."""
    ids = [c.id for c in model.preset.classes if c.name in names]
    return torch.isin(label, torch.tensor(ids))[:, None]


def _output_loss(
    model: MagicFuse, batch: Batch, count: int, of_head: HeadLoss
) -> dict[str, Tensor]:
    """Return the task's own losses on the output of a `count`-step sampler, through all steps."""
    weights = model.preset.losses.output
    assert weights is not None, "stages of a preset without it are refused before"
    tau = _draw_tau(model, len(batch["degraded"]))
    condition, *details = model.encoder(batch["degraded"])
    streams = model.sample(model.start(condition), condition, count, tau)
    assert streams.x0_ikr is not None and streams.x0_ckg is not None and streams.x0_mkf is not None
    clean, known = batch["clean"], (batch["has_clean"] * batch["sharpness"])[:, None, None, None]
    restored = model.decoder(streams.x0_ikr, *details).float()
    logits = scores(model, streams.z_seg, condition, details)
    # Decoding is half of the cost. The other two images are smooth, or equal the restored one
    # except for a few pixels, so half of the batch is enough for them.
    some = torch.randperm(len(clean))[: (len(clean) + 1) // 2]
    thermal, fused = (
        model.decoder(x0[some], *(d[some] for d in details)).float()
        for x0 in (streams.x0_ckg, streams.x0_mkf)
    )
    shown = {key: value[some] for key, value in batch.items()}
    images = (restored[some], thermal, fused)
    return {
        "restored": weights.restored
        * (detail_l1(restored, clean, known) + coarse_l1(restored, clean, known))
        + weights.chroma * weighted_l1(chroma(restored), chroma(clean), known),
        "segmentation": weights.segmentation * of_head(model, streams.z_seg, logits, batch),
        "fusion": _fusion_loss(model, shown, images, logits[some], tau[some]),
        **_estimate_losses(model, weights.thermal, shown, thermal),
    }


def _estimate_losses(
    model: MagicFuse, weights: ThermalLossConfig, batch: Batch, decoded: Tensor
) -> dict[str, Tensor]:
    """Return the losses of the thermal estimates in decoded images (B, 3, H, W).

    Each call uses a different quarter of the pixels: thermal images are smooth.
    """
    rows, columns = (slice(random.randrange(2), None, 2) for _ in range(2))
    estimate = read_estimate(decoded[..., rows, columns], model.preset.thermal_uncertainty)
    labels = batch["label"][..., rows, columns]
    losses = {}
    paired = batch["has_thermal"].nonzero()[:, 0]
    unpaired = (batch["has_thermal"] == 0).nonzero()[:, 0]
    if len(paired):
        losses["thermal"] = thermal_loss(
            estimate.at(paired),
            batch["thermal"][paired][..., rows, columns],
            batch["weight"][paired][..., rows, columns],
            (labels[paired] == LOOKALIKE)[:, None],
            batch["has_clean"][paired] == 1,
            weights,
        )
    if len(unpaired):  # people are warm, and far more people have masks than thermal images
        unseen, label = estimate.mean[unpaired], labels[unpaired]
        people = _of_classes(model, label, PEOPLE)
        wanted = torch.full((len(unpaired),), weights.enough * weights.unseen_contrast)
        short = contrast_loss(unseen, people.float(), wanted, weights.street)
        losses["people"] = weights.unseen * short
        unknown = (label >= len(model.preset.classes))[:, None]  # or a set that may include people
        warm = _of_classes(model, label, (*PEOPLE, *RIDERS, "car")) | unknown
        losses["unseen"] = unseen_loss(unseen, warm.float(), weights)
    return losses


def one_step_loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
    """Train a single step from pure noise, the most decisive level."""
    return _output_loss(model, batch, 1, head_loss)


def few_step_loss(
    model: MagicFuse, batch: Batch, of_head: HeadLoss = head_loss
) -> dict[str, Tensor]:
    """Train every K of the preset, smaller K more often."""
    steps = model.preset.steps
    count = random.choices(steps, [1 / k**2.5 for k in steps])[0]
    return _output_loss(model, batch, count, of_head)


EVERYTHING = ("encoder", "decoder", "ikr", "ckg", "mkf", "segmentation")

STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage("autoencoder", ("encoder", "decoder"), autoencoder_loss, (0.4, 0.3, 0.3)),
        # The context is trained here, not with the autoencoder: latents are local.
        Stage("ikr", ("encoder.context", "ikr"), ikr_loss, (0.6, 0.4, 0.0)),
        Stage("ckg", ("ckg",), ckg_loss, (0.0, 0.45, 0.55), paired_only=True),
        Stage("mkf", ("mkf", "segmentation"), mkf_loss, (0.55, 0.2, 0.25)),
        Stage(
            "one_step",
            EVERYTHING,
            one_step_loss,
            (0.56, 0.2, 0.24),
            # Losses that fall at this rate stagnate above it.
            optimizer=AdamWConfig(learning_rate=8e-4),
        ),
        Stage(
            "few_step",
            EVERYTHING,
            few_step_loss,
            (0.62, 0.16, 0.22),  # masks need the most time
            optimizer=AdamWConfig(learning_rate=4e-4),
            # The streams serve several noise levels here. Batches of one level have other
            # statistics than the running ones, which inference uses.
            frozen_statistics=True,
        ),
        Stage(
            "masks",
            masks.TRAINED,
            None,
            (0.74, 0.06, 0.2),
            loss_from=masks.masks_loss,
            labelled_only=True,
            optimizer=AdamWConfig(learning_rate=3e-4),
            frozen_statistics=True,
        ),
    )
}
