# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Random degraded crops of scenes, as batches of tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from magicfuse_training.data.classes import (
    BICYCLIST,
    FENCE,
    IGNORE,
    MOST_CLASSES,
    PEDESTRIAN,
    SIGN,
    U8,
)
from magicfuse_training.data.crop_light import (
    CLOTHES_GAIN,
    DARK_CLOTHES,
    SHARES,
    Arrays,
    Jitter,
    degraded_crop,
    dress_darkly,
)
from magicfuse_training.data.night_scene import render_night
from magicfuse_training.data.scenes import Scene
from magicfuse_training.data.silhouettes import Silhouette, paste, silhouettes
from magicfuse_training.degradations import compress

Batch = dict[str, torch.Tensor]
PASTED = (0.2, 0.6)  # height and width of a patch from another scene, as shares of a crop
AROUND_PEOPLE = {True: 0.3, False: 0.15}  # share of crops around people, by day and at night
AROUND_RARE = 0.25  # share of the other crops that are around a rare class, if the scene has one
RARE = (SIGN, FENCE, BICYCLIST)  # drawn equally often: by pixels, most crops would show none
NEAR = 0.2  # share of crops that zoom in on a scene, so that people fill the frame
NEAREST = 4.5  # scale
LEAST_RANGE = 1.4  # ratio of the largest to the smallest scale of a scene that is not zoomed in on
LABELLED = 0.5  # share of a crop that needs known classes: night is made by class


@dataclass(frozen=True)
class CropConfig:
    """How crops are drawn. `groups` are drawn with `group_weights`."""

    height: int = 256
    width: int = 320
    batch: int = 12
    scale: tuple[float, float] = (0.53, 1.6)  # of the letterboxed scene; more if it is smaller
    clean: float = 0.3  # a restorer that rarely sees clean input overcorrects on clean days
    night_weight: float = 0.3  # of the stand-in for a night scene's clean image
    person_weight: float = 7.0  # in mostly dark thermal images, people need extra weight
    # Share of crops with a patch of another scene of their group (CutMix, arXiv 1905.04899). A
    # network soon memorises a few hundred scenes; it must not memorise who stands where.
    mixed: float = 0.4
    night: float = 0.22  # share of labelled day crops without thermal that become night
    pasted: float = 0.35  # share of night crops that people are pasted into
    people: tuple[int, ...] = (PEDESTRIAN,)  # their ids in the labels
    rare: tuple[int, ...] = RARE
    more: tuple[tuple[str, float], ...] = ()  # extra kinds for degraded crops, with probabilities


class Crops(Dataset[Batch]):
    """An endless list of random crops: sample i is a pure function of (seed, i).

    A killed run therefore resumes with exactly the crops that it would have seen, and processes
    that share a batch see together what one process would see alone.

    `crops[range(24, 36)]` is a batch of samples 24 to 35: `degraded`, `clean` (B, 3, H, W) uint8;
    `thermal` (B, 1, H, W) uint8; `label`, `teacher` (B, H, W) int64; `has_clean` (B,) float32, 1 or
    the lower weight of a stand-in; `has_thermal` (B,) float32, 0 or 1; `sharpness` (B,) float32 in
    (0, 1], the weight of the clean image as a restoration target; `weight` (B, 1, H, W) float32 for
    the thermal loss.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Scene]],
        group_weights: list[float],
        config: CropConfig,
        seed: int,
    ) -> None:
        self.groups = groups
        self.probabilities = np.array(group_weights) / sum(group_weights)
        self.config = config
        self.seed = seed
        self.silhouettes: list[Silhouette] = silhouettes(groups) if config.pasted else []

    @property
    def scenes(self) -> int:
        """Number of scenes to draw from: one epoch has as many samples."""
        return sum(len(g) for g, p in zip(self.groups, self.probabilities, strict=True) if p > 0)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """Return the samples of these indices as one batch."""
        samples = [self._sample(np.random.default_rng([self.seed, i])) for i in indices]
        return {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches of `config.batch` consecutive samples without end."""
        for start in itertools.count(0, self.config.batch):
            yield self[range(start, start + self.config.batch)]

    def _sample(self, rng: np.random.Generator) -> Arrays:
        config = self.config
        group = self.groups[int(rng.choice(len(self.groups), p=self.probabilities))]
        scene = group[int(rng.integers(len(group)))]
        crop, rows, sharpness = self._cut(scene, rng)
        if rng.random() < config.mixed:
            other, *_ = self._cut(group[int(rng.integers(len(group)))], rng)
            part = self._pasted_part(rng)
            for name, image in crop.items():
                image[part] = other[name][part]
        if scene.clean and rng.random() < DARK_CLOTHES:
            dress_darkly(crop, rng.uniform(*CLOTHES_GAIN), config.people)
        has_clean = 1.0 if scene.clean else config.night_weight
        if not scene.clean and self.silhouettes and rng.random() < config.pasted:
            paste(crop, self.silhouettes, rng)
        known = known_classes(crop["label"], crop["teacher"])
        by_day = scene.clean and scene.thermal is None and (known != IGNORE).mean() > LABELLED
        if by_day and rng.random() < config.night:
            degraded, crop["target"] = render_night(crop["visible"], known, rng)
            if rng.random() < SHARES.compressed:
                degraded = compress(degraded, rng.random())
            has_clean = config.night_weight
        else:
            degraded = degraded_crop(
                crop["visible"], scene.clean, rng, config.clean, rows, config.more
            )
        weight = np.where(crop["people"] > 0, np.float32(config.person_weight), np.float32(1))
        return {
            "degraded": degraded.transpose(2, 0, 1),
            "clean": crop["target"].transpose(2, 0, 1),
            "thermal": crop["thermal"][None],
            "label": crop["label"].astype(np.int64),
            "teacher": crop["teacher"].astype(np.int64),
            "weight": weight[None],
            "has_clean": np.float32(has_clean),
            "has_thermal": np.float32(scene.thermal is not None),
            "sharpness": np.float32(sharpness),
        }

    def _cut(
        self, scene: Scene, rng: np.random.Generator
    ) -> tuple[Arrays, tuple[float, float], float]:
        """Cut a random crop out of a scene's images.

        Also return its rows and its sharpness: scene pixels per crop pixel, at most 1. An enlarged
        crop is not a sharp restoration target.
        """
        config = self.config
        height, width = scene.visible.shape[:2]
        near = rng.random() < NEAR
        # A crop of a small scene is enlarged; a crop that exceeded the scene would be stretched.
        least = max(config.scale[0], config.height / height, config.width / width)
        most = max(config.scale[1], least * LEAST_RANGE)
        scales = (most, max(most, NEAREST)) if near else (least, most)
        scale = np.exp(rng.uniform(*np.log(scales)))
        aspect = np.exp(rng.uniform(-0.1, 0.1))
        h = min(height, round(config.height / scale * aspect))
        w = min(width, round(config.width / scale / aspect))
        y, x = self._corner(scene, h, w, near, rng)
        flip = rng.random() < 0.5

        def cut(image: U8, how: int) -> U8:
            part = image[y : y + h, x : x + w]
            part = cv2.resize(part, (config.width, config.height), interpolation=how)
            return np.array(part[:, ::-1] if flip else part)

        jitter = Jitter(rng, scene.clean)
        visible = jitter(cut(scene.visible, cv2.INTER_LINEAR))
        clean = visible if scene.clean else jitter(cut(scene.target, cv2.INTER_LINEAR))
        people, thermal = np.zeros((2, config.height, config.width), np.uint8)
        if scene.thermal is not None:
            thermal = cut(scene.thermal, cv2.INTER_AREA)
            people = cut(scene.people_mask(), cv2.INTER_NEAREST)
        teacher = np.full((config.height, config.width), IGNORE, np.uint8)
        crop: Arrays = {
            "visible": visible,
            "target": clean.copy(),
            "thermal": thermal,
            "label": cut(scene.label, cv2.INTER_NEAREST),
            "teacher": teacher if scene.teacher is None else cut(scene.teacher, cv2.INTER_NEAREST),
            "people": people,
        }
        sharpness = min(1.0, h * w / (config.height * config.width))
        return crop, (y / height, (y + h) / height), sharpness

    def _corner(
        self, scene: Scene, h: int, w: int, near: bool, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Choose a crop, sometimes around people (less often at night) or around a rare class.

        Zoomed-in crops are always around people: most other places would show no more than a patch.

        If little tells people from lit windows and cones, an estimate goes by their share in the
        crops.
        """
        height, width = scene.visible.shape[:2]
        y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
        if len(scene.people) and (rng.random() < AROUND_PEOPLE[scene.clean] or near):
            x0, y0, x1, y1 = scene.people[rng.integers(len(scene.people))]
            y = np.clip((y0 + y1) / 2 - rng.uniform(0.2, 0.8) * h, 0, height - h)
            x = np.clip((x0 + x1) / 2 - rng.uniform(0.2, 0.8) * w, 0, width - w)
        elif rng.random() < AROUND_RARE and (
            place := rare_place(scene.label, self.config.rare, rng)
        ):
            y = np.clip(place[0] - rng.uniform(0.2, 0.8) * h, 0, height - h)
            x = np.clip(place[1] - rng.uniform(0.2, 0.8) * w, 0, width - w)
        return int(y), int(x)

    def _pasted_part(self, rng: np.random.Generator) -> tuple[slice, slice]:
        """Choose the rows and columns that another scene's patch covers."""
        size = (self.config.height, self.config.width)
        shares = rng.uniform(*PASTED, 2)
        starts = rng.uniform(0, 1 - shares)
        rows, columns = (
            slice(round(a * n), round((a + b) * n))
            for a, b, n in zip(starts, shares, size, strict=True)
        )
        return rows, columns


def rare_place(
    label: U8, rare: tuple[int, ...], rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return row and column of a rare-class pixel of a label (H, W); None if it has none."""
    there = [i for i in rare if (label == i).any()]
    if not there:
        return None
    rows, columns = np.nonzero(label == there[int(rng.integers(len(there)))])
    one = int(rng.integers(len(rows)))
    return int(rows[one]), int(columns[one])


def known_classes(label: U8, teacher: U8 | None) -> U8:
    """Return the classes of a label, filled in from the teacher where the label has none."""
    return label if teacher is None else np.where(label < MOST_CLASSES, label, teacher)
