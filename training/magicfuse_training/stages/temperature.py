# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Fits the temperature of the confidence (arXiv 1706.04599); no mask changes.

Class weights, and crops around rare classes, make common classes less probable than they are in
whole frames. Training frames will do: `nano` fits them no better than others (see EXPERIMENTS.md).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_ros.geometry import Geometry
from magicfuse_training.arrays import U8
from magicfuse_training.data.classes import IGNORE
from magicfuse_training.data.crops import LABELLED
from magicfuse_training.data.mix import Groups
from magicfuse_training.data.scenes import Scene
from magicfuse_training.degradations import degrade
from magicfuse_training.errors import TrainingError
from magicfuse_training.losses.segmentation import segmentation_loss
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset

FRAMES = 15  # of each group
KINDS = (None, "dark", "haze")  # of each day frame
STRENGTHS = (0.5, 0.75, 1.0)  # of frames in turn
PIXELS = 2000  # of each frame
TEMPERATURES = np.geomspace(0.5, 2.0, 81)


def check_fit(preset: Preset, groups: Groups) -> None:
    """Check that a temperature can be fitted.

    Raises:
        TrainingError: if the head has none, or no scene has labels for half of its pixels.
    """
    if not preset.segmentation_width:
        raise TrainingError(
            f"preset '{preset.name}' has segmentation_width 0, and its head no temperature; "
            "expected a width above 0"
        )
    if not any(_labelled(scene) for group in groups for scene in group.scenes):
        raise TrainingError(
            "the temperature of the confidence needs frames with labels for half of their pixels; "
            "the data has none"
        )


def fit_temperature(model: MagicFuse, groups: Groups) -> float:
    """Set the temperature that makes the labels of whole training frames most probable; return it.

    Args:
        model: sets `model.segmentation.temperature`.
        groups: scenes; those with few labelled pixels are skipped.

    Raises:
        TrainingError: see `check_fit`.
    """
    check_fit(model.preset, groups)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)  # the noise that sampling starts from
    scores: list[Tensor] = []
    labels: list[Tensor] = []
    for group in groups:
        every = max(1, len(group.scenes) // FRAMES)
        for turn, scene in enumerate(group.scenes[i] for i in range(0, len(group.scenes), every)):
            if not _labelled(scene):
                continue
            for kind in KINDS if scene.clean else KINDS[:1]:
                strength = STRENGTHS[turn % len(STRENGTHS)]
                image = degrade(scene.visible, kind, strength, rng) if kind else scene.visible
                found, label = _scores(model, image, scene.label)
                known = (label != IGNORE).nonzero()[:, 0]
                some = known[torch.from_numpy(rng.integers(len(known), size=PIXELS))]
                scores.append(found[:, some])
                labels.append(label[some])
    all_scores, label = torch.cat(scores, 1)[None, :, None], torch.cat(labels)[None, None]
    alike = torch.ones(all_scores.shape[1])
    costs = [segmentation_loss(all_scores / t, label, alike).item() for t in TEMPERATURES]
    temperature = float(TEMPERATURES[int(np.argmin(costs))])
    model.segmentation.temperature.fill_(temperature)
    return temperature


def _labelled(scene: Scene) -> bool:
    return bool((scene.label != IGNORE).mean() >= LABELLED)


@torch.no_grad()
def _scores(model: MagicFuse, image: U8, label: U8) -> tuple[Tensor, Tensor]:
    """Return the head's scores (C, N) and the label ids (N,) of a frame's pixels."""
    preset = model.preset
    place = Geometry.fit(label.shape, (preset.height, preset.width), "letterbox")
    placed = np.full((preset.height, preset.width), IGNORE, np.uint8)
    rows, columns = place.content
    resized = cv2.resize(label, (columns, rows), interpolation=cv2.INTER_NEAREST_EXACT)
    placed[place.top : place.top + rows, place.left : place.left + columns] = resized
    x = torch.from_numpy(place.forward(image)).permute(2, 0, 1)[None] / 255
    condition, *details = model.encoder.condition_and_details(model.encoder.scaled(x), None)
    start = model.start(condition)
    z_seg = model.sample(start, condition, preset.default_steps, torch.ones(1)).z_seg
    scores = model.class_scores(z_seg, condition, *details)[0]
    ids = torch.from_numpy(placed)[None, None].float()
    ids = F.interpolate(ids, size=scores.shape[-2:], mode="nearest")[0, 0]
    return scores.flatten(1), ids.flatten().long()
