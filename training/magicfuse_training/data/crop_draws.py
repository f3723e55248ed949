# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What crops show and how they are degraded: the draws, for crops made on the CPU and on a device.

Nothing here touches a pixel: `crops.py` does that with OpenCV, one crop at a time, and
`device_crops.py` with torch, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from magicfuse_training.arrays import F32, I64, U8
from magicfuse_training.data.classes import BICYCLIST, FENCE, PEDESTRIAN, SIGN
from magicfuse_training.degradations import Darkness, Effect, Jpeg, Rows, draw

FEW = 300  # scenes, which a network soon memorises; larger groups are fitted no better than others
PASTED = (0.2, 0.6)  # height and width of a patch from another scene, as shares of a crop
AROUND_PEOPLE = {True: 0.3, False: 0.15}  # share of crops around people, by day and at night
AROUND_RARE = 0.25  # share of the other crops that are around a rare class, if the scene has one
RARE = (SIGN, FENCE, BICYCLIST)  # drawn equally often; drawn by pixels, most crops would show none
NEAR = 0.2  # share of the crops that zoom in
# Of these, if the scene has people, around one of them. Without the others the network takes
# whatever fills the frame for people.
NEAR_PEOPLE = 0.6
NEAREST = 4.5  # scale
BAR = (0.05, 0.35)  # height of a bar, as a share of the crop's
LEAST_RANGE = 1.4  # ratio of the largest to the smallest scale of a scene that is not zoomed in on
ASPECT = 0.1  # a crop is stretched by exp(-0.1) to exp(0.1)
DARK_CLOTHES = 0.3  # share of day crops whose people are darkened: few scenes show dark clothes
CLOTHES_GAIN = (0.1, 0.7)  # factor on the codes of dark clothes
# Exponents of the strengths: strong degradations come more often than weak ones.
STRONGER = 0.7
STRONGER_HAZE = 0.45  # hazy frames are what masks lose most in
NOISIER_WELL = (1000.0, 9000.0)  # electrons
NOISIER_READ = (2.0, 12.0)  # electrons, standard deviation
LEFT = (-0.5, 1.0)  # stops that are missing after the gain of a camera that exposes by itself
GRAIN = 1.4  # crop pixels: more zoom shows something near, not a sensor with fewer pixels

Place = tuple[float, float]


@dataclass(frozen=True)
class CropConfig:
    """How crops are drawn from scenes."""

    height: int = 256
    width: int = 320
    batch: int = 12
    scale: tuple[float, float] = (0.53, 1.6)  # of the letterboxed scene; more if it is smaller
    clean: float = 0.3  # a restorer that rarely sees clean input overcorrects on clean days
    night_weight: float = 0.3  # weight of the stand-in for a night scene's clean image
    person_weight: float = 7.0  # in mostly dark thermal images, people need extra weight
    # Share of crops that get a patch of another scene of their group, if that has FEW at most
    # (CutMix, arXiv 1905.04899): a network must not memorise who stands where.
    mixed: float = 0.4
    night: float = 0.22  # share of labelled day crops without thermal that become night
    pasted: float = 0.35  # share of night crops that people are pasted into
    # Share of crops with a bar. A third of the networks' input is bars if the image of a camera is
    # twice as wide as high.
    bars: float = 0.2
    people: tuple[int, ...] = (PEDESTRIAN,)  # their ids in the labels
    rare: tuple[int, ...] = RARE
    more: tuple[tuple[str, float], ...] = ()  # extra kinds for degraded crops, with probabilities


@dataclass(frozen=True)
class Window:
    """The part of a scene that a crop shows, in the scene's pixels; `flip`: mirrored."""

    y: float
    x: float
    height: float
    width: float
    flip: bool

    def sharpness(self, config: CropConfig) -> float:
        """Return scene pixels per crop pixel, at most 1: an enlarged crop is no sharp target."""
        return min(1.0, self.height * self.width / (config.height * config.width))

    def shares(self, size: tuple[int, ...]) -> tuple[Rows, Rows]:
        """Return first and last row, and column, as fractions of a scene of size (H, W).

        The columns are those of the mirrored scene if the crop is mirrored.
        """
        rows = self.y / size[0], (self.y + self.height) / size[0]
        first, last = self.x / size[1], (self.x + self.width) / size[1]
        return rows, (1 - last, 1 - first) if self.flip else (first, last)

    def grain(self, config: CropConfig, enlargement: float) -> float:
        """Return the width of a sensor pixel in crop pixels, from 1 to GRAIN.

        Args:
            config: size of the crop.
            enlargement: of the scene, see `Scene`.
        """
        zoom = (config.height * config.width / (self.height * self.width)) ** 0.5
        return float(np.clip(enlargement * zoom, 1.0, GRAIN))


@dataclass(frozen=True)
class Bar:
    """Rows at a crop's top or bottom that mirror those next to them, as a letterbox's bars do."""

    rows: int
    top: bool

    def sources(self, height: int) -> I64:
        """Return the row that each row of a crop shows, (height,) int64."""
        rows = np.arange(height) if self.top else np.arange(height)[::-1]
        rows[: self.rows] = rows[2 * self.rows : self.rows : -1]
        return rows if self.top else rows[::-1]

    @property
    def hidden(self) -> slice:
        """The rows of the bar."""
        return slice(self.rows) if self.top else slice(-self.rows, None)


def draw_bar(config: CropConfig, rng: np.random.Generator) -> Bar | None:
    """Draw whether a crop has a bar, and which."""
    if rng.random() >= config.bars:
        return None
    return Bar(max(1, round(config.height * rng.uniform(*BAR))), bool(rng.random() < 0.5))


def draw_window(
    size: tuple[int, int],
    clean: bool,
    people: F32,
    rare: Callable[[np.random.Generator], Place | None],
    config: CropConfig,
    rng: np.random.Generator,
    bar: Bar | None = None,
) -> Window:
    """Draw a part of a scene, sometimes around people (less often at night) or a rare class.

    If little tells people from lit windows and cones, an estimate follows their shares in the
    crops: hence the shares of crops around people.

    Args:
        size: rows and columns of the scene.
        clean: whether the scene is by day.
        people: boxes (x0, y0, x1, y1) of people, (N, 4).
        rare: finds row and column of a pixel of a rare class, if the scene has one.
        config: size and scale.
        rng: draws.
        bar: the crop's, if it has one: the crop then lies at that edge of the scene.
    """
    height, width = size
    near = rng.random() < NEAR
    around = NEAR_PEOPLE if near else AROUND_PEOPLE[clean]
    # A crop of a small scene is enlarged; a crop that exceeded the scene would be stretched.
    least = max(config.scale[0], config.height / height, config.width / width)
    most = max(config.scale[1], least * LEAST_RANGE)
    scale = np.exp(rng.uniform(*np.log((most, max(most, NEAREST)) if near else (least, most))))
    aspect = np.exp(rng.uniform(-ASPECT, ASPECT))
    h = min(height, config.height / scale * aspect)
    w = min(width, config.width / scale / aspect)
    y, x = rng.uniform(0, height - h), rng.uniform(0, width - w)
    centre: Place | None = None
    if len(people) and rng.random() < around:
        x0, y0, x1, y1 = people[rng.integers(len(people))]
        centre = (y0 + y1) / 2, (x0 + x1) / 2
    elif rng.random() < AROUND_RARE:
        centre = rare(rng)
    if centre is not None:
        y = np.clip(centre[0] - rng.uniform(0.2, 0.8) * h, 0, height - h)
        x = np.clip(centre[1] - rng.uniform(0.2, 0.8) * w, 0, width - w)
    if bar is not None:
        y = 0.0 if bar.top else height - h
    return Window(float(y), float(x), float(h), float(w), bool(rng.random() < 0.5))


def rare_place(label: U8, rare: tuple[int, ...], rng: np.random.Generator) -> Place | None:
    """Return row and column of a rare-class pixel of a label (H, W); None if it has none."""
    there = [i for i in rare if (label == i).any()]
    if not there:
        return None
    rows, columns = np.nonzero(label == there[int(rng.integers(len(there)))])
    one = int(rng.integers(len(rows)))
    return int(rows[one]), int(columns[one])


def draw_patch(rng: np.random.Generator) -> tuple[Place, Place]:
    """Draw the rows and the columns that another scene's patch covers: from, to; 0 to 1."""
    shares = rng.uniform(*PASTED, 2)
    starts = rng.uniform(0, 1 - shares)
    rows, columns = ((float(a), float(a + b)) for a, b in zip(starts, shares, strict=True))
    return rows, columns


@dataclass(frozen=True)
class LightRange:
    """Ranges of a scene's light changes: a network soon memorises a few hundred fixed scenes."""

    gamma: tuple[float, float]
    gain: tuple[float, float]
    balance: tuple[float, float]  # for each colour
    saturation: tuple[float, float]  # for half of the crops


# By day and at night, where lamps and the camera's gain vary more. By day the light is also that of
# the restorer's target, and nothing in a dark frame tells by how much it was changed.
LIGHT = {
    True: LightRange((0.88, 1.14), (0.95, 1.05), (0.97, 1.03), (0.75, 1.2)),
    False: LightRange((0.7, 1.4), (0.6, 1.5), (0.9, 1.1), (0.5, 1.4)),
}


@dataclass(frozen=True)
class Light:
    """One change of contrast, colour and brightness; `gains`: red, green, blue."""

    gamma: float
    gains: tuple[float, float, float]
    saturation: float


def draw_light(clean: bool, rng: np.random.Generator) -> Light:
    """Draw the change of light of a scene by day (`clean`) or at night."""
    by = LIGHT[clean]
    gamma = float(rng.uniform(*by.gamma))
    red, green, blue = (rng.uniform(*by.gain) * rng.uniform(*by.balance, 3)).tolist()
    saturation = float(rng.uniform(*by.saturation)) if rng.random() < 0.5 else 1.0
    return Light(gamma, (red, green, blue), saturation)


@dataclass(frozen=True)
class DegradationShares:
    """Degradations of crops: shares of the day crops that are degraded."""

    dark: float = 0.37
    haze: float = 0.45
    fog: float = 0.03
    rain: float = 0.06
    blur: float = 0.05
    # The rest is compressed, and so is a quarter of the others; some are blurred first.
    compressed: float = 0.25
    blurred_first: float = 0.15
    dark_night: float = 0.15  # of the night scenes, mildly
    noisier: float = 0.35  # of the dark crops
    # Of the dark crops: the gain makes up for the dark, and there are no lamps. If all noisy crops
    # were dark and lit by lamps, the network would change the light of whatever is noisy.
    exposed: float = 0.2


SHARES = DegradationShares()
MAIN_KINDS = ("haze", "fog", "rain", "blur")  # in the order of the shares, after dark


def draw_darkness(strength: float, rng: np.random.Generator, grain: float = 1.0) -> Darkness:
    """Draw from the camera model, sometimes with a noisier sensor or more gain than in `dark`."""
    effect = Darkness.draw(strength, rng).model_copy(update={"grain": grain})
    if rng.random() < SHARES.exposed:
        gain = 2.0 ** (effect.stops - rng.uniform(*LEFT))
        even = {"light_stops": ((0.0,),), "cast": (1.0, 1.0, 1.0)}
        return effect.model_copy(update={"gain": gain, **even})
    if rng.random() < SHARES.noisier:
        well, read = np.exp(rng.uniform(*np.log(NOISIER_WELL))), rng.uniform(*NOISIER_READ)
        effect = effect.model_copy(update={"full_well": well, "read_noise": read})
    return effect


def draw_effects(
    clean: bool,
    rng: np.random.Generator,
    undegraded: float,
    more: Sequence[tuple[str, float]] = (),
    grain: float = 1.0,
) -> list[Effect]:
    """Draw the degradations of a crop, in their order.

    A day scene has one main cause and sometimes a second; a night scene seldom has any.

    Args:
        clean: whether the scene is by day.
        rng: draws.
        undegraded: share of the day crops that stay as they are.
        more: extra kinds for degraded crops, and their probabilities.
        grain: see `Darkness`; by day.
    """
    cause = rng.random()
    if not clean:
        return draw("dark", 0.0, rng) if cause < SHARES.dark_night else []
    if cause < undegraded:
        return []
    even, effects = rng.random(), []
    strength = even**STRONGER
    if rng.random() < SHARES.blurred_first:
        effects += draw("blur", rng.random() * 0.6, rng)
    shares = np.cumsum([SHARES.dark, SHARES.haze, SHARES.fog, SHARES.rain, SHARES.blur])
    dark, *others = undegraded + (1 - undegraded) * shares
    if cause < dark:
        effects.append(draw_darkness(strength, rng, grain))
    else:
        for kind, end in zip(MAIN_KINDS, others, strict=True):
            if cause < end:
                effects += draw(kind, even**STRONGER_HAZE if kind == "haze" else strength, rng)
                break
    for kind, share in more:
        if rng.random() < share:
            effects += draw(kind, rng.random(), rng)
    if rng.random() < SHARES.compressed or cause > others[-1]:
        effects.append(Jpeg.draw(rng.random(), rng))
    return effects
