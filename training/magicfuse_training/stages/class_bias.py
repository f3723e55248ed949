# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Adds a constant to each class's scores, chosen so that mIoU on training frames is highest.

Weighted cross entropy and Dice decide how readily a rare class is called, and no weights are right
for mIoU. Constants on the scores, fitted after the training (logit adjustment, arXiv 2007.07314),
cost nothing: they become part of the last convolution's bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from magicfuse_ros.bundle.schedule import ddim_steps
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.mix import Source
from magicfuse_training.data.scenes import Scenes
from magicfuse_training.errors import TrainingError
from magicfuse_training.metrics.restoration import CONDITIONS, degraded
from magicfuse_training.model import MagicFuse
from magicfuse_training.recipe import ClassBias

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Pixels = tuple[Floats, Ints]  # scores (N, C) and classes (N,) of one set under one condition
_STRIDE = 4  # every fourth score in each direction: neighbours say the same
_CHANGES = (-1.0, -0.6, -0.3, -0.15, 0.15, 0.3, 0.6, 1.0)
_ROUNDS = 3
_COST = 0.02  # of mIoU, in points, for each unit of a constant: a gain of nothing changes nothing


def add_class_bias(model: MagicFuse, sources: Sequence[Source], config: ClassBias) -> list[float]:
    """Fit the constants on training frames, add them to the head in place, and return them.

    Args:
        model: in evaluation mode afterwards.
        sources: sets with labels in the preset's classes; their training splits are used.
        config: how many frames, and the classes whose scores keep their value.

    Raises:
        TrainingError: if the preset has no head to add them to, or it does not have a class that
            `config.keep` names.
        DataError: for an incomplete or damaged set.
    """
    names = [c.name for c in model.preset.classes]
    if not model.segmentation.refined:
        raise TrainingError(
            f"class_bias needs a segmentation head; preset '{model.preset.name}' has none"
        )
    if unknown := [name for name in config.keep if name not in names]:
        raise TrainingError(
            f"class_bias.keep has '{unknown[0]}'; expected some of {', '.join(names)}"
        )
    pixels = [some for source in sources for some in _scored(model, source, config.frames)]
    free = [i for i, name in enumerate(names) if name not in config.keep]
    bias = fit(pixels, free, len(names))
    convolution = model.segmentation.conv2
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.bias += torch.from_numpy(bias)
    return [round(float(b), 2) for b in bias]


def fit(pixels: Sequence[Pixels], free: Sequence[int], classes: int) -> Floats:
    """Return constants (C,) for the highest mean of the mIoUs of all `pixels`, one class at a time.

    `free`: the classes whose constant may differ from 0.
    """
    bias = np.zeros(classes, np.float32)

    def value(candidate: Floats) -> float:
        miou = np.mean([mean_iou(scores + candidate, truth, classes) for scores, truth in pixels])
        return float(100 * miou - _COST * np.abs(candidate).sum())

    best = value(bias)
    for _ in range(_ROUNDS):
        for i in free:
            for candidate in [bias + change * _unit(i, classes) for change in _CHANGES]:
                if (found := value(candidate)) > best:
                    best, bias = found, candidate
    return bias


def mean_iou(scores: Floats, truth: Ints, classes: int) -> float:
    """Return the mean IoU, 0 to 1, of the classes that occur in `truth`, ids below `classes`."""
    pairs = classes * truth + scores.argmax(1)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    hits, there = np.diag(counts), counts.sum(1)
    union = counts.sum(0) + there - hits
    return float((hits / np.maximum(union, 1))[there > 0].mean())


def _unit(i: int, classes: int) -> Floats:
    return np.asarray(np.eye(classes)[i], np.float32)


@torch.no_grad()
def _scored(model: MagicFuse, source: Source, frames: int) -> list[Pixels]:
    """Return scores and classes of some training frames by day, for each condition."""
    preset = model.preset
    model.eval()
    names = [c.name for c in preset.classes]
    scenes = Scenes(
        dataset(source.kind),
        source.root,
        source.training_split,
        preset.height,
        preset.width,
        names,
    )
    found: list[list[Pixels]] = [[] for _ in CONDITIONS]
    every = max(1, len(scenes) // frames)
    for number in track(range(0, len(scenes), every), description=f"class bias: {source.kind}"):
        scene = scenes[number]
        if not scene.clean:
            continue
        rows, columns = scene.label.shape
        pads = [(preset.height - rows) // 2, (preset.width - columns) // 2]
        inside = tuple(slice(p, p + n) for p, n in zip(pads, (rows, columns), strict=True))
        label = np.full((preset.height, preset.width), 255, np.uint8)
        label[inside] = scene.label
        for condition, some in zip(CONDITIONS, found, strict=True):
            image = np.zeros((preset.height, preset.width, 3), np.uint8)
            image[inside] = degraded(scene.visible, condition, number // every)
            some.append(_labelled(_scores(model, image), label, len(names)))
    return [
        (np.concatenate([s for s, _ in some]), np.concatenate([t for _, t in some]))
        for some in found
        if some
    ]


def _scores(model: MagicFuse, image: npt.NDArray[np.uint8]) -> Tensor:
    """Return the scores (C, h, w) of an image (H, W, 3) at the smallest K, as they are exported."""
    torch.manual_seed(0)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    condition, *details = model.encoder(x)
    streams = model.start(condition)
    tau = torch.tensor([model.preset.tau])
    for step in ddim_steps(model.preset.schedule, model.preset.timesteps(model.preset.steps[0])):
        streams = model.advance(streams, condition, step, tau)
    scores = model.segmentation(streams.z_seg, *details[:1]).float()
    enlarged: Tensor = F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)[
        0
    ]
    return enlarged


def _labelled(scores: Tensor, label: npt.NDArray[np.uint8], classes: int) -> Pixels:
    """Return scores and classes of some of the pixels that have a class."""
    coarse = scores[:, ::_STRIDE, ::_STRIDE].flatten(1).T.numpy()
    ratio = label.shape[0] // scores.shape[1] * _STRIDE
    truth = label[ratio // _STRIDE // 2 :: ratio, ratio // _STRIDE // 2 :: ratio].reshape(-1)
    known = truth < classes
    return np.asarray(coarse[known], np.float32), truth[known].astype(np.int64)
