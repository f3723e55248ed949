# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Varies the light and the clothes in crops, and degrades them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_training.degradations import Darkness, apply, blur, compress, degrade

Arrays = dict[str, npt.NDArray[Any]]
DARK_CLOTHES = 0.3  # share of day crops whose people are darkened
CLOTHES_GAIN = (0.1, 0.7)  # factor on their codes
CLOTHES_EDGE = (
    5  # pixels over which the gain fades: an edge sharper than a lens makes would reveal it
)


@dataclass(frozen=True)
class JitterRange:
    """Ranges of a scene's light changes: a network soon memorises a few hundred fixed scenes."""

    gamma: tuple[float, float]
    gain: tuple[float, float]
    balance: tuple[float, float] = (0.9, 1.1)  # for each colour
    saturation: tuple[float, float] = (0.5, 1.4)  # for half of the crops


# By day and at night, where lamps and the camera's gain vary more.
JITTER = {
    True: JitterRange(gamma=(0.75, 1.35), gain=(0.85, 1.15)),
    False: JitterRange(gamma=(0.7, 1.4), gain=(0.6, 1.5)),
}


class Jitter:
    """One draw of contrast, colour, brightness."""

    def __init__(self, rng: np.random.Generator, clean: bool) -> None:
        by = JITTER[clean]
        table = (np.arange(256)[:, None] / 255.0) ** rng.uniform(*by.gamma)
        table = np.clip(table * rng.uniform(*by.gain) * rng.uniform(*by.balance, 3), 0, 1)
        self.lut = (table * 255).round().astype(np.uint8)[None]
        self.saturation = rng.uniform(*by.saturation) if rng.random() < 0.5 else 1.0

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        image = np.asarray(cv2.LUT(image, self.lut), dtype=np.uint8)
        if self.saturation == 1.0:
            return image
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        mixed = cv2.addWeighted(image, self.saturation, gray, 1 - self.saturation, 0)
        return np.asarray(mixed, dtype=np.uint8)


def dress_darkly(crop: Arrays, gain: float, people: tuple[int, ...]) -> None:
    """Darken the people of a crop in place: few training scenes show dark clothes.

    `visible` and `target` are (h, w, 3) uint8; `label` (h, w) shows people as the ids `people`.
    """
    mask = np.isin(crop["label"], people).astype(np.float32)
    mask = cv2.blur(mask, (CLOTHES_EDGE, CLOTHES_EDGE))[..., None]
    for name in ("visible", "target"):
        crop[name] = (crop[name] * (1 - (1 - gain) * mask)).round().astype(np.uint8)


@dataclass(frozen=True)
class DegradationShares:
    """Degradations of crops: shares of the clean scenes that are changed."""

    dark: float = 0.36
    haze: float = 0.32
    blur: float = 0.06
    # The rest, and a quarter of all, is compressed; some crops are first blurred.
    compressed: float = 0.25
    blurred_first: float = 0.15
    dark_night: float = 0.15  # of the night scenes, mildly
    noisier: float = 0.35  # of the dark crops


SHARES = DegradationShares()
NOISIER_WELL = (1000.0, 9000.0)  # electrons
NOISIER_READ = (2.0, 12.0)  # electrons, standard deviation


def draw_darkness(strength: float, rng: np.random.Generator) -> Darkness:
    """Draw from the camera model, sometimes with a noisier sensor than the scores use."""
    effect = Darkness.draw(strength, rng)
    if rng.random() < SHARES.noisier:
        well, read = np.exp(rng.uniform(*np.log(NOISIER_WELL))), rng.uniform(*NOISIER_READ)
        effect = effect.model_copy(update={"full_well": well, "read_noise": read})
    return effect


def degraded_crop(
    image: npt.NDArray[np.uint8],
    clean: bool,
    rng: np.random.Generator,
    undegraded: float,
    rows: tuple[float, float],
    more: Sequence[tuple[str, float]] = (),
) -> npt.NDArray[np.uint8]:
    """Degrade a clean scene by one main cause and sometimes a second; a night scene rarely.

    `more` holds extra kinds for degraded crops and their probabilities.
    """
    draw = rng.random()
    if not clean:
        return degrade(image, "dark", 0.0, rng) if draw < SHARES.dark_night else image
    if draw < undegraded:
        return image
    strength = rng.random()
    if rng.random() < SHARES.blurred_first:
        image = blur(image, rng.random() * 0.6, rng)
    dark, haze, blurred = undegraded + np.cumsum([SHARES.dark, SHARES.haze, SHARES.blur])
    if draw < dark:
        image = apply([draw_darkness(strength, rng)], image, rng)
    elif draw < haze:
        image = degrade(image, "haze", strength, rng, rows)
    elif draw < blurred:
        image = blur(image, strength, rng)
    for kind, share in more:
        if rng.random() < share:
            image = degrade(image, kind, rng.random(), rng, rows)
    if rng.random() < SHARES.compressed or draw > blurred:
        image = compress(image, rng.random())
    return image
