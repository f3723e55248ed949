"""Losses of a thermal estimate (B, 1, H, W), float32, nominally in [0, 1]: its level and its error.

An estimate is a mean and the scale b of a Laplace distributed error around it: see `read_estimate`.
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

_RING = 4  # pixels around people that they are compared with: at half of an image's size, 8


class Estimate(NamedTuple):
    """A thermal estimate: its mean, and the scale of its error if that is known."""

    mean: Tensor  # (B, 1, H, W)
    scale: Tensor | None  # (B, 1, H, W), Laplace's b, over 0

    def at(self, samples: Tensor) -> Estimate:
        """Return some samples of a batch, by their indices."""
        return Estimate(self.mean[samples], None if self.scale is None else self.scale[samples])

    def surely(self) -> Tensor:
        """Return what the real image exceeds with a probability of 3/4, (B, 1, H, W)."""
        return self.mean if self.scale is None else self.mean - math.log(2) * self.scale


def read_estimate(image: Tensor, coding: ThermalUncertainty | None) -> Estimate:
    """Read the estimate from a decoded image (B, 3, H, W), as the vehicle's runtime does.

    The mean is the luma, and nothing is known of its error; or it is the red channel, and the blue
    one codes the scale.
    """
    if coding is None:
        return Estimate(luma(image), None)
    low, high = math.log(coding.lowest), math.log(coding.highest)
    # Beyond the codes' ends the gradient is kept small, not cut off: else it would stay there.
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

    The mean is drawn to the real image everywhere; people are a few pixels and are what thermal
    adds, so their error, and how they stand out, count by themselves. The scale is taught by the
    likelihood of the error that the mean has, which does not teach the mean: where an estimate is
    unsure, as at night, a likelihood would all but stop teaching it (arXiv 2203.09168).

    Args:
        estimate: of B images.
        thermal: (B, 1, H, W), real, at the usual level and gain.
        weight: (B, 1, H, W), over 1 on people.
        lookalike: (B, 1, H, W) bool, what looks like people and is not.
        day: (B,) bool.
        weights: of the parts.
    """
    people = (weight > 1).float()
    on_people, on_contrast = (torch.where(day, *w) for w in (weights.people, weights.contrast))
    on_people = on_people[:, None, None, None]
    error = estimate.mean - thermal
    wanted = weights.enough * contrast(thermal, people, weights.street)
    loss = (
        weights.absolute * error.abs().mean()
        + weights.squared * error.square().mean()
        + weights.edges * edge_l1(estimate.mean, thermal, weight)
        + (on_people * error.square() * people).sum() / people.sum().clamp_min(1.0)
        + weights.lookalikes
        * (error.square() * lookalike).sum()
        / lookalike.sum().clamp_min(weights.few)
        + contrast_loss(estimate.mean, people, wanted, weights.street, on_contrast)
    )
    if estimate.scale is not None:
        loss = loss + weights.scale * laplace_nll(error.detach(), estimate.scale)
    return loss


def laplace_nll(error: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of minus the log likelihood of errors under Laplace distributions, less ln 2.

    `error` and `scale` (over 0) are of one shape; the result is a scalar.
    """
    return (error.abs() / scale + scale.log()).mean()


def contrast(image: Tensor, people: Tensor, street: float) -> Tensor:
    """Return mean over people minus mean of a ring around them, (B,); 0 where there is nobody.

    `image` is (B, 1, H, W), `people` (B, 1, H, W), 0 or 1. A ring that is colder than a `street`
    counts as a street: it would do as well as warmer people, and be seen as a rim.
    """
    ring = F.max_pool2d(people, 2 * _RING + 1, 1, _RING) - people
    inside, around = (
        (values * region).sum((1, 2, 3)) / region.sum((1, 2, 3)).clamp_min(1.0)
        for values, region in ((image, people), (image.clamp_min(street), ring))
    )
    known = (people.sum((1, 2, 3)) > 0) & (ring.sum((1, 2, 3)) > 0)
    return torch.where(known, inside - around, torch.zeros_like(inside))


def contrast_loss(
    estimate: Tensor,
    people: Tensor,
    wanted: Tensor,
    street: float,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """Return by how much people fall short of a contrast, mean over images that show some.

    `estimate` is (B, 1, H, W), `people` (B, 1, H, W), 0 or 1, `wanted` and `weight` (B,); `street`
    as for `contrast`; the result is a scalar.
    """
    short = weight * F.relu(wanted - contrast(estimate, people, street))
    seen = (people.sum((1, 2, 3)) > 0).float()
    return (short * seen).sum() / seen.sum().clamp_min(1.0)


def unseen_loss(estimate: Tensor, warm: Tensor, weights: ThermalLossConfig) -> Tensor:
    """Return the loss of an estimate that there is no thermal image for, a scalar.

    A contrast alone can be had by lighting up whatever stands where people often are. So what is
    not warm is no warmer than most of a street, and nothing is hotter than people are. `estimate`
    is (B, 1, H, W); `warm` (B, 1, H, W), 1 on people, riders and cars, and where unlabelled.
    """
    warmer = F.relu(estimate - weights.cool) * (1 - warm)
    over = F.relu(estimate - weights.hottest)
    return (
        weights.warmer * warmer.mean() + weights.excess * (warmer.square() + over.square()).mean()
    )
