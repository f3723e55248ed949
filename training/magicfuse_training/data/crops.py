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

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from magicfuse_training.arrays import U8
from magicfuse_training.data.classes import IGNORE
from magicfuse_training.data.crop_draws import (
    CLOTHES_GAIN,
    DARK_CLOTHES,
    FEW,
    SHARES,
    Bar,
    CropConfig,
    Place,
    Window,
    draw_bar,
    draw_effects,
    draw_light,
    draw_patch,
    draw_window,
    rare_place,
)
from magicfuse_training.data.crop_light import Arrays, Relight, dress_darkly
from magicfuse_training.data.night_scene import render_night
from magicfuse_training.data.scenes import Scene, known_classes
from magicfuse_training.data.silhouettes import Silhouette, paste, silhouettes
from magicfuse_training.degradations import apply, degrade

Batch = dict[str, torch.Tensor]
LABELLED = 0.5  # share of a crop that must have known classes: night is made by class


class Crops(Dataset[Batch]):
    """An endless list of random crops: sample i is a pure function of (seed, i).

    A killed run therefore resumes with exactly the crops that it would have seen, and processes
    that share a batch together see what one process would see alone.

    `crops[range(24, 36)]` is a batch of samples 24 to 35: `degraded`, `clean` (B, 3, H, W) uint8;
    `thermal` (B, 1, H, W) uint8; `label`, `teacher` (B, H, W) int64; `has_clean` (B,) float32, 1 or
    the lower weight of a stand-in; `has_thermal` (B,) float32, 0 or 1; `sharpness` (B,) float32 in
    (0, 1], the weight of the clean image as a restoration target; `weight` (B, 1, H, W) float32 for
    the thermal loss. With `undegraded`, also `seen` (B, 3, H, W) uint8: the crop as the camera saw
    it, before it was degraded or made night.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Scene]],
        group_weights: list[float],
        config: CropConfig,
        seed: int,
        undegraded: bool = False,
    ) -> None:
        self.groups = groups
        self.probabilities = np.array(group_weights) / sum(group_weights)
        self.config = config
        self.seed = seed
        self.undegraded = undegraded
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
        bar = draw_bar(config, rng)
        crop, window = self._cut(scene, rng, bar)
        if rng.random() < config.mixed and len(group) <= FEW:
            other, _ = self._cut(group[int(rng.integers(len(group)))], rng)
            part = self._slices(draw_patch(rng))
            for name, image in crop.items():
                image[part] = other[name][part]
        if scene.clean and rng.random() < DARK_CLOTHES:
            dress_darkly(crop, rng.uniform(*CLOTHES_GAIN), config.people)
        has_clean = 1.0 if scene.clean else config.night_weight
        # Not if their pixels would be the only ones with a class.
        pastes = not scene.clean and self.silhouettes and (crop["label"] != IGNORE).any()
        if pastes and rng.random() < config.pasted:
            paste(crop, self.silhouettes, rng)
        known = known_classes(crop["label"], crop["teacher"])
        by_day = scene.clean and scene.thermal is None and (known != IGNORE).mean() > LABELLED
        if by_day and rng.random() < config.night:
            degraded, crop["target"] = render_night(crop["visible"], known, rng)
            if rng.random() < SHARES.compressed:
                degraded = degrade(degraded, "jpeg", rng.random(), rng)
            has_clean = config.night_weight
        else:
            grain = window.grain(config, scene.enlargement)
            effects = draw_effects(scene.clean, rng, config.clean, config.more, grain)
            rows, columns = window.shares(scene.visible.shape[:2])
            effects = [effect.cut(rows, columns) for effect in effects]
            degraded = apply(effects, crop["visible"], rng, rows)
        if bar is not None:
            crop = {name: image[bar.sources(config.height)] for name, image in crop.items()}
            degraded = degraded[bar.sources(config.height)]
            crop["label"][bar.hidden] = crop["teacher"][bar.hidden] = IGNORE
        weight = np.where(crop["people"] > 0, np.float32(config.person_weight), np.float32(1))
        seen = {"seen": crop["visible"].transpose(2, 0, 1)} if self.undegraded else {}
        return seen | {
            "degraded": degraded.transpose(2, 0, 1),
            "clean": crop["target"].transpose(2, 0, 1),
            "thermal": crop["thermal"][None],
            "label": crop["label"].astype(np.int64),
            "teacher": crop["teacher"].astype(np.int64),
            "weight": weight[None],
            "has_clean": np.float32(has_clean),
            "has_thermal": np.float32(scene.thermal is not None),
            "sharpness": np.float32(window.sharpness(config)),
        }

    def _cut(
        self, scene: Scene, rng: np.random.Generator, bar: Bar | None = None
    ) -> tuple[Arrays, Window]:
        """Cut a random crop out of a scene's images; also return the window."""
        config = self.config
        height, width = scene.visible.shape[:2]

        def rare(rng: np.random.Generator) -> Place | None:
            return rare_place(scene.label, config.rare, rng)

        window = draw_window((height, width), scene.clean, scene.people, rare, config, rng, bar)
        h, w = round(window.height), round(window.width)
        y, x = min(round(window.y), height - h), min(round(window.x), width - w)

        def cut(image: U8, how: int) -> U8:
            part = image[y : y + h, x : x + w]
            part = cv2.resize(part, (config.width, config.height), interpolation=how)
            return np.array(part[:, ::-1] if window.flip else part)

        relight = Relight(draw_light(scene.clean, rng))
        visible = relight(cut(scene.visible, cv2.INTER_LINEAR))
        clean = visible if scene.clean else relight(cut(scene.target, cv2.INTER_LINEAR))
        people, thermal = np.zeros((2, config.height, config.width), np.uint8)
        if scene.thermal is not None:
            thermal = cut(scene.thermal, cv2.INTER_AREA)
            people = cut(scene.people_mask(), cv2.INTER_NEAREST_EXACT)
        teacher = np.full((config.height, config.width), IGNORE, np.uint8)
        if scene.teacher is not None:
            teacher = cut(scene.teacher, cv2.INTER_NEAREST_EXACT)
        crop: Arrays = {
            "visible": visible,
            "target": clean.copy(),
            "thermal": thermal,
            "label": cut(scene.label, cv2.INTER_NEAREST_EXACT),
            "teacher": teacher,
            "people": people,
        }
        return crop, window

    def _slices(self, patch: tuple[Place, Place]) -> tuple[slice, slice]:
        """Return the rows and columns of a patch that `draw_patch` drew."""
        rows, columns = (
            slice(round(start * n), round(end * n))
            for (start, end), n in zip(patch, (self.config.height, self.config.width), strict=True)
        )
        return rows, columns
