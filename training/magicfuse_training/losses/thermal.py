"""Losses of a thermal estimate (B, 1, H, W), float32, nominally in [0, 1]."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.losses.image import edge_l1

TYPICAL_CONTRAST = 0.155  # of a person in MSRS train against the surroundings
TYPICAL_LEVEL = 0.075  # of a street by day, off people
WARMEST = 0.45  # of people in MSRS train: what the hottest tenth of a box exceeds, in the median
_RING = 8  # pixels around people that they are compared with
_ON_LOOKALIKES = 6.0  # weight of the squared error on them: they are seldom seen in training
_FEW = 300.0  # pixels of them in a batch that together count no more than these would
_ENOUGH = 0.9  # of a real contrast; a push for all of it lights up what only looks like people


@dataclass(frozen=True)
class _Belief:
    """How far the training streets are believed, by the time of day.

    Attributes:
        level: of a typical thermal image, off people.
        kept: share of what people differ from it by.
        people: weight of the squared error on people.
    """

    level: float
    kept: float
    people: float


_DAY = _Belief(TYPICAL_LEVEL, 1.0, 18.0)
_NIGHT = _Belief(0.06, 0.5, 1.5)


def thermal_loss(
    estimate: Tensor, thermal: Tensor, weight: Tensor, lookalike: Tensor, day: Tensor
) -> Tensor:
    """Return the loss against a real thermal image.

    What a visible image suggests about temperatures off people does not hold on the next street: on
    MSRS dev such structure costs SSIM by day and night, and PSNR at night. So the target off people
    is the level of a typical street. People are a few pixels and are what thermal adds: their
    squared error counts by itself, and by day, when they can be seen, their contrast. At night it
    counts little more than that of other pixels, and people are drawn towards the level, too: a few
    hundred training scenes make an estimate too sure of them.

    Args:
        estimate: (B, 1, H, W).
        thermal: (B, 1, H, W), real.
        weight: (B, 1, H, W), over 1 on people.
        lookalike: (B, 1, H, W) bool, what looks like people and is not.
        day: (B,) bool.

    Returns:
        A scalar.
    """
    people = (weight > 1).float()
    level, kept, on_people = (
        torch.where(day, by_day, at_night)[:, None, None, None]
        for by_day, at_night in zip(astuple(_DAY), astuple(_NIGHT), strict=True)
    )
    target = level + kept * people * (thermal - level)
    error = estimate - target
    return (
        12 * error.abs().mean()
        + 100 * error.square().mean()
        + 2 * edge_l1(estimate, target, weight)
        + (on_people * error.square() * people).sum() / people.sum().clamp_min(1.0)
        + _ON_LOOKALIKES * (error.square() * lookalike).sum() / lookalike.sum().clamp_min(_FEW)
        + 9 * contrast_loss(estimate, people * day[:, None, None, None], contrast(thermal, people))
    )


def contrast(image: Tensor, people: Tensor) -> Tensor:
    """Return mean over people minus mean of a ring around them, (B,); 0 where there is nobody.

    `image` is (B, 1, H, W), `people` (B, 1, H, W), 0 or 1. A ring that is colder than a street
    counts as a street: it would do as well as warmer people, and be seen as a rim.
    """
    ring = F.max_pool2d(people, 2 * _RING + 1, 1, _RING) - people
    inside, around = (
        (values * region).sum((1, 2, 3)) / region.sum((1, 2, 3)).clamp_min(1.0)
        for values, region in ((image, people), (image.clamp_min(TYPICAL_LEVEL), ring))
    )
    known = (people.sum((1, 2, 3)) > 0) & (ring.sum((1, 2, 3)) > 0)
    return torch.where(known, inside - around, torch.zeros_like(inside))


def contrast_loss(estimate: Tensor, people: Tensor, wanted: Tensor) -> Tensor:
    """Return by how much people fall short of 0.9 of a contrast, mean over images that show some.

    `estimate` is (B, 1, H, W), `people` (B, 1, H, W), 0 or 1, `wanted` (B,); the result a scalar.
    """
    short = F.relu(_ENOUGH * wanted - contrast(estimate, people))
    seen = (people.sum((1, 2, 3)) > 0).float()
    return (short * seen).sum() / seen.sum().clamp_min(1.0)


def unseen_loss(estimate: Tensor, warm: Tensor) -> Tensor:
    """Return the loss of an estimate that there is no thermal image for, a scalar.

    A contrast alone can be had by lighting up whatever stands where people often are. So all that
    is not warm is drawn to the level of a typical street, and nothing is hotter than people are.
    `estimate` is (B, 1, H, W); `warm` (B, 1, H, W), 1 on people and riders, and where unlabelled.
    """
    error = (estimate - TYPICAL_LEVEL) * (1 - warm)
    over = F.relu(estimate - WARMEST)
    return 3 * error.abs().mean() + 30 * error.square().mean() + 30 * over.square().mean()
