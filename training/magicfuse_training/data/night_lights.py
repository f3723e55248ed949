# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The lamps of a night scene: street lamps, the car's headlights, other cars, windows, signs.

`View` estimates the scene's geometry from its labels alone: the horizon, the vanishing point of the
road, and the distance at which each pixel's object stands on the ground. Lamps therefore have
positions in metres. Pools of light lie on the ground in perspective, and the light of a lamp
matches its visible position.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from magicfuse_training.arrays import F32, U8, Mask
from magicfuse_training.data.classes import (
    BICYCLIST,
    BUILDING,
    CAR,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
)

Rng = np.random.Generator

FAR_M = 90.0  # the farthest distance considered
FLOOR_M = 3.3  # height of a floor
UNKNOWN = BICYCLIST + 1  # this label and all above: not exactly known

SODIUM, WARM, WHITE, COLD, MERCURY = (
    (1.0, 0.5, 0.12), (1.0, 0.76, 0.42), (1.0, 0.95, 0.85), (0.8, 0.95, 1.0), (0.75, 1.0, 0.72),
)  # fmt: skip
LAMPS = np.array((SODIUM, WARM, WHITE, COLD, MERCURY), np.float32)
TAIL = np.array((1.0, 0.035, 0.02), np.float32)
SIGNALS = np.array(((1.0, 0.06, 0.03), (1.0, 0.5, 0.03), (0.05, 1.0, 0.55)), np.float32)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a number, equally likely in every octave between `low` and `high`."""
    return float(low * (high / low) ** rng.random())


class View:
    """The geometry of a scene, at half the size of the image; lengths in metres.

    Attributes:
        height, width: size of the image, in pixels.
        horizon, vanish: row and column of the road's vanishing point, in pixels of the image.
        focal: focal length of the camera, in pixels of the image.
        small: the label, (H/2, W/2) uint8.
        eye: height of the camera above the road, in metres.
        x, y, z: distance to the right of the camera, above the ground, and ahead: (H/2, W/2)
            float32.
        ground: pixels that lie flat instead of standing, (H/2, W/2) bool.
    """

    def __init__(self, label: U8, rng: Rng) -> None:
        """Estimate it from a label (H, W) uint8; draw what labels do not tell."""
        self.height, self.width = label.shape
        h, w = max(1, self.height // 2), max(1, self.width // 2)
        self.small = small = np.asarray(
            cv2.resize(label, (w, h), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
        )
        rows = ((np.arange(h, dtype=np.float32) + 0.5) * (self.height / h))[:, None]
        columns = (np.arange(w, dtype=np.float32) + 0.5) * (self.width / w)
        self.horizon, self.vanish = self._far_end(small == ROAD, rows, columns)
        self.focal = self.height * float(rng.uniform(1.3, 2.1))
        self.eye = float(rng.uniform(1.2, 1.6))
        self.ground = ground = ((small == ROAD) | (small == PAVEMENT)) & (rows > self.horizon)
        ground |= (small >= UNKNOWN) & (rows > self.horizon + 0.06 * self.height)
        foot = np.where(ground, rows, np.float32(self.height))
        foot = np.minimum.accumulate(foot[::-1], axis=0)[::-1]  # the first ground below
        foot = cv2.medianBlur(foot.astype(np.float32), 5)
        # A house is as far away behind a car as it is beside the car.
        reach = max(3, w // 7)
        behind = cv2.blur(cv2.erode(foot, np.ones((1, reach), np.uint8)), (reach, 3))
        own = ground | (small == CAR) | (small == PEDESTRIAN) | (small == BICYCLIST)
        foot = np.where(own, foot, np.minimum(foot, behind))
        down = np.maximum(foot - self.horizon, self.focal * self.eye / FAR_M)
        self.z: F32 = np.asarray(self.focal * self.eye / down, np.float32)
        self.x: F32 = np.asarray((columns - self.vanish) * self.z / self.focal, np.float32)
        y = self.eye - (rows - self.horizon) * self.z / self.focal
        self.y: F32 = np.asarray(np.where(ground, 0, y), np.float32).clip(0)

    def _far_end(self, road: Mask, rows: F32, columns: F32) -> tuple[float, float]:
        filled = np.flatnonzero(road.sum(1) >= 3)
        if not filled.size:
            return 0.45 * self.height, 0.5 * self.width
        top = int(filled[0])
        horizon = float(rows[top, 0]) - 0.02 * self.height
        where = road[top : top + max(2, len(rows) // 32)].any(0)
        vanish = 0.6 * float(columns[where].mean()) + 0.2 * self.width
        return float(np.clip(horizon, 0.3 * self.height, 0.55 * self.height)), vanish

    def pixel(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return column and row of a point in metres."""
        return self.vanish + self.focal * x / z, self.horizon - self.focal * (y - self.eye) / z

    def depth(self, column: float, row: float) -> float:
        """Return the distance ahead, in metres, of the object at a pixel inside the image."""
        h, w = self.z.shape
        return float(self.z[min(h - 1, int(row) // 2), min(w - 1, int(column) // 2)])


@dataclass
class Lights:
    """Light sources: what the camera sees of them, and where they stand.

    Attributes:
        layer: light straight from the lamps, (H, W, 3) float32; 1 is the camera's white.
        lamps: x, y, z in metres, strength and colour of each lamp that lights the surroundings.
    """

    layer: F32
    lamps: list[tuple[float, ...]] = field(default_factory=list)

    def dot(self, column: float, row: float, radius: float, color: F32) -> None:
        """Draw a round lamp; one smaller than a pixel is dimmed in proportion."""
        value = (color * min(1.0, radius * radius)).tolist()
        at, r = (round(column * 8), round(row * 8)), round(max(radius, 0.9) * 8)
        cv2.circle(self.layer, at, r, value, -1, shift=3)

    def shed(self, view: View) -> F32:
        """Return the light of the lamps on all surfaces, (H/2, W/2, 3) float32."""
        if not self.lamps:
            return np.zeros((*view.z.shape, 3), np.float32)
        lamps = np.array(self.lamps, np.float32)
        x, y, z, power = lamps[:, :4].T[:, :, None, None]
        over = y - view.y
        squared = (view.x - x) ** 2 + over**2 + (view.z - z) ** 2 + 1  # lamps are not points
        # Upright objects are lit from the side at about 50 degrees; street lamps shine downwards.
        facing = np.where(view.ground, over / np.sqrt(squared), np.float32(0.6))
        light = power * facing * np.clip(0.5 + over * 0.4, 0.05, 1) / squared
        return np.asarray(np.tensordot(light, lamps[:, 4:], (0, 0)), np.float32)


def headlights(view: View, rng: Rng) -> F32:
    """Return the light of the car's own headlights, (H/2, W/2) float32; low or high beam."""
    side, down = rng.uniform(0.15, 0.45), rng.uniform(0.06, 0.25)  # radians
    above = 0.4 if rng.random() < 0.15 else rng.uniform(0.02, 0.1)
    lamp = 0.65  # metres above the ground
    tilt = (view.y - lamp) / view.z + 0.01
    beam = np.exp(-(((view.x / view.z - rng.uniform(-0.05, 0.1)) / side) ** 2))
    cutoff = 1 / (1 + np.exp(np.clip(tilt * 120, -30, 30)))
    beam *= (cutoff * (1 - above) + above) * np.exp(-np.abs(tilt) / down)
    squared = view.x**2 + view.z**2
    facing = np.where(view.ground, lamp / np.sqrt(squared), np.float32(0.35))
    return np.asarray(beam * facing / squared, np.float32)


def street_lamps(lights: Lights, view: View, label: U8, rng: Rng) -> None:
    """Place street lamps in rows along the road, and on the tops of labelled poles."""
    power, size = log_uniform(rng, 2, 20), rng.uniform(0.05, 0.13)  # white = 1; metres
    main, other = LAMPS[rng.integers(len(LAMPS))], LAMPS[rng.integers(len(LAMPS))]
    places: list[tuple[float, float, float]] = []
    high, spacing = rng.uniform(4.5, 9), rng.uniform(16, 40)
    side, start = rng.choice((-1, 1)), rng.uniform(3, 3 + spacing)
    for i in range(1 if rng.random() < 0.6 else 2):
        x = side * (1 - 2 * i) * rng.uniform(4, 11)
        places += [(x, high, z) for z in start + spacing * (np.arange(3) + 0.5 * i)]
    pole = view.small == POLE
    tops = 2 * np.argwhere(pole[1:] & ~pole[:-1])
    tops = tops[tops[:, 0] < 0.8 * view.horizon]  # higher than the camera
    if len(tops) and rng.random() < 0.6:
        for row, column in tops[rng.integers(len(tops), size=int(rng.integers(1, 3)))]:
            z = view.depth(column, row)
            y = view.eye - (row - view.horizon) * z / view.focal
            places.append(((column - view.vanish) * z / view.focal, y, z))
    twin = rng.random() < 0.25
    for x, y, z in places:
        color = main if rng.random() < 0.8 else other
        lights.lamps.append((x, y, z, log_uniform(rng, 0.5, 2), *color))
        column, row = view.pixel(x, y, z)
        if not (0 <= column < view.width and 0 <= row < view.height):
            continue
        what = int(label[int(row), int(column)])
        hidden = what in (BUILDING, TREE) and view.depth(column, row) < 0.7 * z
        if not hidden and (what in (SKY, POLE, BUILDING, TREE) or what >= UNKNOWN):
            tint = np.float32(power) * (0.3 * color + 0.7 * color**0.5)
            for dx in (-0.5, 0.5) if twin else (0.0,):
                lights.dot(column + dx * view.focal / z, row, size * view.focal / z, tint)


def far_lights(lights: Lights, view: View, label: U8, rng: Rng) -> None:
    """Scatter small lamps around the horizon: other streets, doors, distant signals."""
    count = int(rng.integers(0, 11) * rng.random())
    columns = rng.uniform(0, view.width - 1, count)
    rows = view.horizon + view.height * rng.normal(-0.02, 0.025, count)
    for column, row in zip(columns, rows.clip(0, view.height - 1), strict=True):
        what = int(label[int(row), int(column)])
        if what in (BUILDING, TREE, POLE) or what >= UNKNOWN:
            color = SIGNALS[0] if rng.random() < 0.1 else LAMPS[rng.integers(len(LAMPS))]
            radius = view.height / 256 * rng.uniform(0.4, 1.2)
            lights.dot(column, row, radius, color * np.float32(log_uniform(rng, 0.3, 6)))


def _parts(view: View, which: int, least: int) -> list[list[int]]:
    """Return x, y, w, h, in image pixels, of a label's largest connected parts."""
    mask = (view.small == which).astype(np.uint8)
    if not mask.any():
        return []
    boxes = cv2.connectedComponentsWithStats(mask)[2][1:]
    boxes = boxes[boxes[:, 4] * 4 >= least]
    largest = np.argsort(-boxes[:, 4])[:8]
    return [[2 * int(side) for side in box] for box in boxes[largest, :4]]


def car_lights(lights: Lights, view: View, label: U8, rng: Rng) -> None:
    """Switch on the lights of labelled cars: white if they approach, red if they drive away."""
    moving = rng.uniform(0.3, 0.95)  # the others are parked
    keep_right = 1 if rng.random() < 0.7 else -1
    for x, y, w, h in _parts(view, CAR, label.size // 1500):
        oncoming = ((x + w / 2 - view.vanish) * keep_right < 0) ^ (rng.random() < 0.2)
        wide = w > 2.1 * h  # seen from the side, or several cars in a row
        if rng.random() > (moving / 2 if wide else moving):
            continue
        span = min(w * 0.8, 1.3 * h * rng.uniform(0.7, 1)) if wide else w * rng.uniform(0.72, 0.84)
        left = x + rng.uniform(0.05 * w, 0.95 * w - span) if wide else x + (w - span) / 2
        row = y + h * (rng.uniform(0.55, 0.68) if oncoming else rng.uniform(0.42, 0.58))
        color, power = TAIL, log_uniform(rng, 0.5, 3)
        if oncoming:
            color, power = LAMPS[2 if rng.random() < 0.6 else 3], log_uniform(rng, 2, 25)
        radius = min(w, h, view.height / 4) * rng.uniform(0.035, 0.065)
        z = view.depth(min(view.width - 1, x + w / 2), min(view.height - 1, y + h - 1))
        at = (left + span / 2 - view.vanish) * z / view.focal
        lights.lamps.append((at, 0.7, max(2.0, z - 1.5), 0.06 if oncoming else 0.008, *color))
        for column in (left, left + span):
            inside = 1 <= column < view.width - 1 and 0 <= row < view.height
            if not inside or label[int(row), int(column)] != CAR:
                continue
            lights.dot(column, row, radius, color * np.float32(power))
            if not oncoming:  # the lamp itself is pink at its brightest
                lights.dot(column, row, radius * 0.4, (color + 0.25) * np.float32(power))


def signals(lights: Lights, view: View, rng: Rng) -> None:
    """Light some signs that are taller than wide, like traffic lights."""
    for x, y, w, h in _parts(view, SIGN, 12):
        if h > 1.5 * w and rng.random() < 0.4:
            which = int(rng.choice(3, p=(0.5, 0.1, 0.4)))
            row = y + h * (1 + 2 * which) / 6
            color = SIGNALS[which] * np.float32(log_uniform(rng, 1, 6))
            lights.dot(x + w / 2, row, max(0.8, min(0.3 * w, h / 10, view.height / 100)), color)


def windows(lights: Lights, view: View, label: U8, shade: F32, rng: Rng) -> None:
    """Light windows and shops, in rows that run to the vanishing point, and some facades ahead.

    Args:
        lights: receives them.
        view: the view of `label`.
        label: (H, W) uint8.
        shade: daytime brightness relative to the surroundings, (H, W) float32: real windows are
            dark by day, so dark places shine most.
        rng: selects them.
    """
    rows, columns = np.nonzero(view.small == BUILDING)
    if not rows.size:
        return
    aside = 2 * columns.astype(np.float32) + np.float32(1 - view.vanish)
    below = 2 * rows.astype(np.float32) + np.float32(1 - view.horizon)
    off = np.maximum(np.abs(aside), 1)
    left, right, near, front = rng.uniform((5, 5, 25, 15), (14, 14, 50, 45)).astype(np.float32)
    ahead = np.where(aside > 0, right, left) * np.float32(view.focal) / off
    facing = ahead > (near if rng.random() < 0.7 else 0)  # facades towards us
    ahead[facing] = front
    off[facing] = view.focal
    along = np.where(facing, aside * ahead / np.float32(view.focal) + 200, ahead)
    up = np.float32(view.eye) - below * ahead / np.float32(view.focal)
    pitch = np.float32(rng.uniform(1.6, 3.5))  # metres from window to window
    stories, cells = up / np.float32(FLOOR_M), along / pitch
    shop = stories < 1
    cells[shop] *= 0.5  # twice as wide
    floor, cell = stories.astype(np.int32).clip(0, 23), cells.astype(np.int32) % 64
    lit = rng.random((24, 64), np.float32) < rng.choice((0.05, 0.15, 0.35, 0.6))
    lit &= np.repeat(rng.random(8) < 0.6, 8)  # whole houses stay dark
    lit[0] = rng.random(64) < rng.choice((0.0, 0.2, 0.5))
    dx, dy = cells % 1, stories % 1
    gap = np.where(shop, np.float32(0.06), np.float32(rng.uniform(0.15, 0.3)))
    wide = pitch * off / ahead  # in pixels
    inside = (np.abs(dx - 0.5) < 0.5 - gap) & (np.abs(dy - 0.55) < 0.3) & lit[floor, cell]
    inside &= (up > 0.4) & (wide > 3) & (wide < 0.22 * view.height)
    rows, columns, floor, cell, dx, dy = (a[inside] for a in (rows, columns, floor, cell, dx, dy))
    power = np.exp(rng.normal(np.log(log_uniform(rng, 0.15, 3)), 0.7, (24, 64))).astype(np.float32)
    power[0] *= 0.7
    color = LAMPS[[1, 1, 2, 2, 3, 4]][rng.integers(0, 6, (24, 64))] * power[..., None]
    bars = (0.4 + 1.2 * dy) * np.where(np.abs(dx * 2 % 1 - 0.5) < 0.42, np.float32(1), 0.4)
    small = np.zeros((*view.small.shape, 3), np.float32)
    small[rows, columns] = color[floor, cell] * bars[:, None]
    dark = np.clip(2.4 - 2 * shade, 0.06, 1) * (label == BUILDING)
    layer = cv2.resize(small, (view.width, view.height), interpolation=cv2.INTER_LINEAR)
    lights.layer += layer * cv2.merge((dark, dark, dark))
