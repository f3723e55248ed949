# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Losses of a thermal estimate (B, 1, H, W), float32, nominally in [0, 1]: its level and its error.

An estimate is a mean and the scale b of its Laplace-distributed error: see `read_estimate`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_ros.bundle import ThermalUncertainty
from magicfuse_training.losses.config import ThermalLossConfig
from magicfuse_training.losses.image import edge_l1, luma

_RING = 4  # radius of the ring around people, in pixels at half of the image's size: 8 at full size


class Estimate(NamedTuple):
    """A thermal estimate: its mean, and the scale of its error if known."""

    mean: Tensor  # (B, 1, H, W)
    scale: Tensor | None  # (B, 1, H, W), Laplace's b, over 0

    def at(self, samples: Tensor) -> Estimate:
        """Return some samples of a batch, by their indices."""
        return Estimate(self.mean[samples], None if self.scale is None else self.scale[samples])

    def surely(self) -> Tensor:
        """Return the level that the real image exceeds with probability 3/4, (B, 1, H, W)."""
        return self.mean if self.scale is None else self.mean - math.log(2) * self.scale


def read_estimate(image: Tensor, coding: ThermalUncertainty | None) -> Estimate:
    """Read the estimate from a decoded image (B, 3, H, W), like the vehicle's runtime.

    Either the mean is the luma and the error is unknown, or the mean is the red channel and the
    blue channel encodes the scale.
    """
    if coding is None:
        return Estimate(luma(image), None)
    low, high = math.log(coding.lowest), math.log(coding.highest)
    # Outside of the codes' range the gradient is kept small, not zero, or values would stay there.
    blue = image[:, 2:3]
    code = blue.clamp(0, 1) + 0.1 * (blue - blue.clamp(0, 1))
    return Estimate(image[:, 0:1], (low + code * (high - low)).exp())


def thermal_loss(
    estimate: Estimate,
    thermal: Tensor,
    weight: Tensor,
    lookalike: Tensor,
    day: Tensor,
    weights: ThermalLossConfig,
) -> Tensor:
    """Return the loss against a real thermal image, a scalar.

    The mean is fitted to the real image, off people to one with smaller deviations from a street's
    level: few scenes have a thermal image, and what a network remembers of them it expects of
    others, too. People cover few pixels but are what thermal adds, so their error and their
    contrast count separately. The scale is taught by the likelihood of the mean's error, which does
    not teach the mean: a likelihood would nearly stop teaching a mean that is uncertain, as at
    night (arXiv 2203.09168).

    Args:
        estimate: estimate of B images.
        thermal: (B, 1, H, W), real, at the usual level and gain.
        weight: (B, 1, H, W), above 1 on people.
        lookalike: (B, 1, H, W) bool, true on objects that look like people.
        day: (B,) bool.
        weights: weights of the parts.
    """
    people = (weight > 1).float()
    on_people, on_contrast, spread = (
        torch.where(day, *w) for w in (weights.people, weights.contrast, weights.spread)
    )
    on_people, spread = on_people[:, None, None, None], spread[:, None, None, None]
    flatter = weights.street + spread * (thermal - weights.street)
    target = torch.where(people > 0, thermal, flatter)
    error = estimate.mean - target
    wanted = weights.enough * contrast(thermal, people, weights.street)
    loss = (
        weights.absolute * error.abs().mean()
        + weights.squared * error.square().mean()
        + weights.edges * edge_l1(estimate.mean, target, weight)
        + (on_people * error.square() * people).sum() / people.sum().clamp_min(1.0)
        + weights.lookalikes
        * (error.square() * lookalike).sum()
        / lookalike.sum().clamp_min(weights.few)
        + contrast_loss(estimate.mean, people, wanted, weights.street, on_contrast)
    )
    if estimate.scale is not None:
        loss = loss + weights.scale * laplace_nll(
            (estimate.mean - thermal).detach(), estimate.scale
        )
    return loss


def laplace_nll(error: Tensor, scale: Tensor) -> Tensor:
    """Return the mean negative log likelihood of errors under Laplace distributions, less ln 2.

    `error` and `scale` (above 0) have the same shape; the result is a scalar.
    """
    return (error.abs() / scale + scale.log()).mean()


def contrast(image: Tensor, people: Tensor, street: float) -> Tensor:
    """Return the mean over people minus the mean of a ring around them, (B,); 0 without people.

    `image` is (B, 1, H, W), `people` (B, 1, H, W), 0 or 1. A ring that is colder than `street`
    counts as `street`. Otherwise a cold ring would raise the contrast as well as warmer people do,
    and be visible as a rim.
    """
    ring = F.max_pool2d(people, 2 * _RING + 1, 1, _RING) - people
    inside, around = (
        (values * region).sum((1, 2, 3)) / region.sum((1, 2, 3)).clamp_min(1.0)
        for values, region in ((image, people), (image.clamp_min(street), ring))
    )
    known = (people.sum((1, 2, 3)) > 0) & (ring.sum((1, 2, 3)) > 0)
    return torch.where(known, inside - around, torch.zeros_like(inside))


def contrast_loss(
    estimate: Tensor, people: Tensor, wanted: Tensor, street: float, weight: Tensor | float = 1.0
) -> Tensor:
    """Return how much contrast people lack, as a mean over the images that show some.

    `estimate` is (B, 1, H, W), `people` (B, 1, H, W), 0 or 1, `wanted` and `weight` (B,); `street`
    as in `contrast`; the result is a scalar.
    """
    short = weight * F.relu(wanted - contrast(estimate, people, street))
    seen = (people.sum((1, 2, 3)) > 0).float()
    return (short * seen).sum() / seen.sum().clamp_min(1.0)


def unseen_loss(estimate: Tensor, warm: Tensor, weights: ThermalLossConfig) -> Tensor:
    """Return the loss of an estimate without a real thermal image, a scalar.

    A network could satisfy a contrast loss alone by lighting up everything in places where people
    often stand. This loss therefore keeps what is not warm below the level of most of a street, and
    everything below the level of the hottest people. `estimate` is (B, 1, H, W); `warm` (B, 1, H,
    W) is 1 on people, riders and cars, and on unlabelled pixels.
    """
    warmer = F.relu(estimate - weights.cool) * (1 - warm)
    over = F.relu(estimate - weights.hottest)
    return (
        weights.warmer * warmer.mean() + weights.excess * (warmer.square() + over.square()).mean()
    )
