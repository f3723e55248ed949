# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Cuts people out of labelled day scenes to paste them into night scenes, which show few people.

A pasted person takes on the light of the place, so that brightness does not reveal which people
were pasted. The feet stand where the person's height on a flat street puts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_training.arrays import F32, U8
from magicfuse_training.data.classes import PEDESTRIAN
from magicfuse_training.data.scenes import Scene

LEAST_HEIGHT = 70  # pixels of a kept person: a smaller person would be a smear
MOST = 600  # the most people that are kept
HEIGHT = (24, 200)  # pixels of a pasted person
HORIZON = (0.3, 0.5)  # share of a crop's rows: the row at which people would have no height
LIGHT = (0.5, 2.2)  # times the place's own light
WARMTH = (30.0, 115.0)  # of 255, level in the middle of a person in a thermal image at night
BLUR = (0.3, 1.2)  # pixels, standard deviation: day images are sharper than those of the night
SOFT_EDGE = 3  # pixels over which a silhouette fades


@dataclass(frozen=True)
class Silhouette:
    """One person: `image` (h, w, 3) RGB uint8, `mask` (h, w) uint8, 255 on the person."""

    image: U8
    mask: U8


def silhouettes(groups: Sequence[Sequence[Scene]]) -> list[Silhouette]:
    """Cut out people who are labelled by day, at most MOST, evenly over all scenes in memory."""
    found: list[Silhouette] = []
    for group in groups:
        if not isinstance(group, list):  # rereading every scene would take minutes
            continue
        for scene in group:
            if scene.clean:
                found += _people_of(scene)
    step = max(1, len(found) // MOST)
    return found[::step][:MOST]


def _people_of(scene: Scene) -> list[Silhouette]:
    found = []
    for x0, y0, x1, y1 in scene.people.round().astype(int):
        x0, y0 = max(x0, 0), max(y0, 0)
        mask = (scene.label[y0:y1, x0:x1] == PEDESTRIAN).astype(np.uint8) * 255
        upright = y1 - y0 >= max(LEAST_HEIGHT, 1.2 * (x1 - x0))  # a wide one is a group
        if upright and mask.mean() > 0.35 * 255:
            found.append(Silhouette(scene.visible[y0:y1, x0:x1].copy(), mask))
    return found


def paste(
    crop: dict[str, npt.NDArray[Any]], people: Sequence[Silhouette], rng: np.random.Generator
) -> None:
    """Paste one to three people into the images of a crop, in place.

    `crop` holds `visible` and `target` (h, w, 3), `thermal`, `label`, `teacher` and `people`
    (h, w), uint8.
    """
    height, width = crop["label"].shape
    for _ in range(rng.integers(1, 4)):
        person = people[int(rng.integers(len(people)))]
        rows = rng.uniform(*HEIGHT) ** 0.5 * HEIGHT[0] ** 0.5  # small people more often
        rows = rng.uniform(rows, HEIGHT[1]) if rng.random() < 0.3 else rows
        horizon = rng.uniform(*HORIZON) * height
        h = max(int(rows), HEIGHT[0])
        w = max(6, round(h * person.mask.shape[1] / person.mask.shape[0]))
        bottom = int(np.clip(horizon + 0.9 * h, h // 2, height + h // 3))
        top, left = bottom - h, int(rng.integers(-w // 3, width - w // 2))
        _put(crop, _resized(person, (h, w), rng.random() < 0.5), top, left, rng)


def _noise(image: F32) -> float:
    """Return the standard deviation of an image's noise, from the middle of its finest details."""
    fine = image[1:, 1:] - image[:-1, 1:] - image[1:, :-1] + image[:-1, :-1]
    return float(np.median(np.abs(fine))) / (2 * 0.6745)  # sum of four independent ones; normal


def _resized(person: Silhouette, size: tuple[int, int], flip: bool) -> Silhouette:
    image, mask = (
        cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA)
        for part in (person.image, person.mask)
    )
    mask = cv2.blur(mask, (SOFT_EDGE, SOFT_EDGE))
    if flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return Silhouette(np.asarray(image, np.uint8), np.asarray(mask, np.uint8))


def _put(
    crop: dict[str, npt.NDArray[Any]],
    person: Silhouette,
    top: int,
    left: int,
    rng: np.random.Generator,
) -> None:
    height, width = crop["label"].shape
    h, w = person.mask.shape
    y0, y1, x0, x1 = max(top, 0), min(top + h, height), max(left, 0), min(left + w, width)
    if y1 - y0 < 8 or x1 - x0 < 4:
        return
    place = (slice(y0, y1), slice(x0, x1))
    inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    mask = person.mask[inside]
    soft = mask.astype(np.float32)[..., None] / 255
    image = person.image[inside].astype(np.float32)
    own = image[mask > 127].mean(0) + 1 if (mask > 127).any() else np.float32(128)
    light = rng.uniform(*LIGHT)
    softened = cv2.GaussianBlur(image, (0, 0), rng.uniform(*BLUR))
    for name in ("visible", "target"):
        behind = crop[name][place].astype(np.float32)
        lit = softened * (behind.mean((0, 1)) + 2) / own * light
        if name == "visible":  # a lack of noise would give a pasted person away
            lit += rng.normal(0, _noise(behind), lit.shape)
        crop[name][place] = (behind + soft * (lit - behind)).clip(0, 255).round()
    solid = mask > 127
    crop["label"][place][solid] = PEDESTRIAN
    crop["teacher"][place][solid] = PEDESTRIAN
    crop["people"][place][solid] = 1
    thermal = crop["thermal"][place]
    warm = rng.uniform(*WARMTH) * (0.8 + 0.2 * image.mean(2) / (image.mean() + 1))
    warmer = np.maximum(thermal, thermal + soft[..., 0] * (warm - thermal))
    crop["thermal"][place] = warmer.clip(0, 255).round()
