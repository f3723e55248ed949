# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Turns a labelled day image of a road into a plausible night image, as training data.

Labelled nights are rare; labelled days are not. Darkening the whole day image equally keeps a
bright sky above a dark road, adds no lamps, and teaches the opposite of a night. Here the labels
tell which pixels are sky and go dark, and where lamps belong. Light is summed in linear units, lit
by `night_lights` and captured by a camera with photon and read noise. Nothing here is learnt.
"""

from __future__ import annotations

from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.media.linear_light import to_linear, to_srgb
from magicfuse_training.arrays import F32, U8
from magicfuse_training.data.classes import (
    BICYCLIST,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
)
from magicfuse_training.data.night_lights import (
    UNKNOWN,
    Lights,
    Rng,
    View,
    car_lights,
    far_lights,
    headlights,
    log_uniform,
    signals,
    street_lamps,
    windows,
)

PixelIndices = tuple[npt.NDArray[np.intp], ...]

__all__ = ["render_night"]

LUMA = np.array((0.2126, 0.7152, 0.0722), np.float32)  # of linear RGB
NOT_RED = np.array(((-0.7, 0, 1),), np.float32)  # at least 0 for sky: blue is not far below red
ALBEDO = 0.16  # of an average surface
# The target's sky is fixed: nobody can tell the day's sky from a night image.
TARGET_SKY = to_linear(np.array(((66, 74, 88), (98, 105, 116)), np.uint8))  # at the top, low down
QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)
QUANTILES /= QUANTILES.std()
SKY_GLOW = np.array(
    ((0.8, 0.9, 1.2), (0.45, 0.65, 1.6), (1.4, 0.95, 0.55), (1.05, 1.0, 0.95), (0.9, 1.1, 0.9)),
    np.float32,
)


def render_night(image: U8, label: U8, rng: Rng) -> tuple[U8, U8]:
    """Return the scene by night, and the image that a restorer should make of it.

    Args:
        image: RGB by day, (H, W, 3) uint8.
        label: the project's ids, (H, W) uint8. Higher ids are not exactly known; such pixels are
            lit like their surroundings. Unknown pixels only reduce the kinds of lamps.
        rng: draws lamps, exposure, road wetness and noise.

    Returns:
        The camera's image at night, and the day image without its bright sky; both (H, W, 3) uint8.
    """
    height, width = label.shape
    view = View(label, rng)
    day = to_linear(image)
    sky, mixed = _matte(day, label, view)
    gain, shade = _flatten(day, sky, rng)

    lights = Lights(np.zeros((height, width, 3), np.float32))
    if rng.random() < 0.85:
        windows(lights, view, label, shade, rng)
    if rng.random() < 0.85:
        street_lamps(lights, view, label, rng)
    far_lights(lights, view, label, rng)
    signals(lights, view, rng)
    car_lights(lights, view, label, rng)
    people = (label == PEDESTRIAN) | (label == BICYCLIST)
    if people.any():  # in front of lamps
        lights.layer *= _rgb((~people).astype(np.float32))

    target = _target(image, day, sky, mixed, view)
    day *= _up(_illumination(lights, gain, view, rng), height, width)
    scene = day  # now it is night
    level = log_uniform(rng, 0.0025, 0.06)  # mean of everything but the sky; 1 is white
    scene *= np.float32(level / max(1e-6, float(np.dot(cv2.mean(scene)[:3], LUMA))))
    scene[: len(sky)] += _rgb(sky) * _night_sky(sky, view.horizon, level, rng)
    scene = _glare(scene, lights, label, view, rng)
    return _take(scene, rng), target


def _up(small: F32, height: int, width: int) -> F32:
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _down(full: F32) -> F32:
    """Return an image at a quarter of its size."""
    size = (max(1, full.shape[1] // 4), max(1, full.shape[0] // 4))
    return np.asarray(cv2.resize(full, size, interpolation=cv2.INTER_AREA))


def _rgb(plane: F32) -> F32:
    """Repeat a plane for three channels; this is faster than broadcasting it."""
    return np.asarray(cv2.merge((plane, plane, plane)))


def _around(value: F32, weight: F32) -> F32:
    """Return weighted local means as small images, or the global mean if no weight is near.

    Args:
        value: (h, w) or (h, w, 3) float32.
        weight: (h, w) float32, at least 0.
    """
    size, sigma = (weight.shape[1], weight.shape[0]), len(weight) / 20
    half = (max(1, size[0] // 2), max(1, size[1] // 2))
    if value.ndim == 3:
        weight = _rgb(weight)
    value = cv2.resize(value * weight, half, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    total = np.array(cv2.mean(value)) / (np.array(cv2.mean(weight)) + 1e-6)
    everywhere = total[: 1 if value.ndim == 2 else 3].astype(np.float32)
    value = cv2.GaussianBlur(value, (0, 0), sigma) + np.float32(0.002) * everywhere
    value /= cv2.GaussianBlur(weight, (0, 0), sigma) + np.float32(0.002)
    return np.asarray(cv2.resize(value, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _matte(day: F32, label: U8, view: View) -> tuple[F32, PixelIndices]:
    """Remove the sky from an image in linear light, in place: it becomes black.

    Return the share of sky in each pixel of the upper rows, (rows, W) float32, and which pixels are
    partly sky.

    Labels follow the outline of a tree. At borders and between leaves, a pixel is part sky, part
    tree. The share of each follows from where its brightness lies between the sky's and the tree's.
    """
    known = label == SKY
    last = np.flatnonzero(known.any(1))
    end = min(view.height, int(max(view.horizon, last[-1] if last.size else 0)) + 4)
    small = _down(day)
    luma = cv2.transform(small, LUMA[None])
    if last.size:
        part = _down(known.astype(np.float32))
        color, solid = _around(small, part**2), _around(luma, (1 - part) ** 4)
    else:
        bright = np.percentile(luma[: max(1, end // 4)], 95).clip(0.35, 0.9)
        color, solid = np.full_like(small, bright), luma
    sky_luma = _up(cv2.transform(color, LUMA[None]), view.height, view.width)[:end]
    solid = _up(solid, view.height, view.width)[:end]
    top, label, known = day[:end], label[:end], known[:end]
    share = cv2.GaussianBlur(known.astype(np.float32), (0, 0), max(1.0, view.height / 256))
    leaves = (label == TREE) | (label == POLE)
    open_to = leaves | (label >= UNKNOWN) | ((share > 0.02) & (share < 0.98))
    solid = np.minimum(solid, sky_luma * np.where(leaves, np.float32(0.15), np.float32(0.5)))
    guess = (cv2.transform(top, LUMA[None]) - solid) / (sky_luma - solid + np.float32(1e-3))
    guess *= cv2.transform(top, NOT_RED) >= 0  # coloured like sky
    guess = (1.1 * guess - 0.05).clip(0, 1)  # an almost pure pixel counts as pure
    share = np.where(open_to, guess, known.astype(np.float32))
    mixed = np.nonzero((share > 0) & (share < 1))
    whole = top[mixed]
    top *= _rgb(1 - share)
    rows, columns = (np.minimum(i // 4, n - 1) for i, n in zip(mixed, luma.shape, strict=True))
    rest = whole - share[mixed][:, None] * color[rows, columns]
    top[mixed] = rest.clip(0.15 * top[mixed], top[mixed])
    return share, mixed


def _flatten(day: F32, sky: F32, rng: Rng) -> tuple[F32, F32]:
    """Separate surfaces from the day's sun and shade.

    Returns:
        The factor that turns the day image into reflectance, (H/4, W/4) float32, and the day's
        brightness relative to the surroundings, (H, W) float32.
    """
    luma = cv2.transform(day, LUMA[None])
    height, width = luma.shape
    solid = np.ones_like(luma)
    solid[: len(sky)] -= sky
    light = _around(_down(luma), _down(solid) ** 2)
    mean = float(light.mean()) + 1e-4
    light = np.maximum(light, 0.05 * mean)
    gain = ALBEDO / mean * np.minimum(mean / light, 2) ** rng.uniform(0.2, 0.6)
    return gain.astype(np.float32), luma / _up(light.astype(np.float32), height, width)


def _illumination(lights: Lights, gain: F32, view: View, rng: Rng) -> F32:
    """Return all light, times the gain of `_flatten`: (H/2, W/2, 3) float32, without a unit."""
    ambient = np.array((0.75, 0.95, 1.2) if rng.random() < 0.6 else (1.25, 0.95, 0.6), np.float32)
    shed = lights.shed(view)
    shed *= np.float32(log_uniform(rng, 0.3, 1.6) / (float(shed.mean()) + 1e-3))
    light = shed + log_uniform(rng, 0.008, 0.25) * ambient
    if own := rng.random() < 0.6:
        beam = headlights(view, rng)
        beam *= np.float32(log_uniform(rng, 0.2, 2) / (float(beam.mean()) + 1e-9))
        color = (1.0, 0.93, 0.8) if rng.random() < 0.5 else (0.92, 1.0, 1.05)
        light += cv2.merge([beam * np.float32(c) for c in color])
    light /= 1 + light * np.float32(1 / 15)  # cameras expose for the lit parts
    balance = np.array(cv2.mean(light)[:3], np.float32)
    light *= (balance.mean() / balance) ** np.float32(rng.uniform(0.2, 0.9))  # white balance
    if own:  # signs reflect headlights straight back
        light[view.small == SIGN] *= np.float32(log_uniform(rng, 1.5, 12))
    light *= _rgb(_up(gain, *view.small.shape))
    return light


def _night_sky(share: F32, horizon: float, level: float, rng: Rng) -> F32:
    """Return a black, blue or glowing sky for the upper rows, (rows, W, 3) float32."""
    height, width = share.shape
    rows = np.linspace(0, height, 32, dtype=np.float32)[:, None, None]
    above = np.maximum(horizon - rows, 0) / (2 * horizon)
    tone, glow = (SKY_GLOW[i] for i in rng.integers(len(SKY_GLOW), size=2))
    base, low = log_uniform(rng, 0.01, 0.35), log_uniform(rng, 0.02, 1.0)
    if rng.random() < 0.08:  # shortly after sunset
        base, low, tone = log_uniform(rng, 0.5, 3), log_uniform(rng, 0.5, 4), SKY_GLOW[1]
    clouds = np.exp(rng.normal(0, 0.15, (5, 5))).astype(np.float32)
    clouds = cv2.resize(clouds, (16, 32), interpolation=cv2.INTER_CUBIC)[..., None]
    small = base * tone + low * np.exp(-above / rng.uniform(0.06, 0.3)) * glow
    return _up((small * clouds * level).astype(np.float32), height, width)


def _glare(scene: F32, lights: Lights, label: U8, view: View, rng: Rng) -> F32:
    """Add the lamps, their glare in the lens, and their reflections if the road is wet."""
    layer = cv2.GaussianBlur(lights.layer, (3, 3), 0.6)
    small = _down(layer)
    unit = len(small) / 64
    haze = 0.06 * cv2.GaussianBlur(small, (0, 0), 0.8 * unit)
    haze += 0.05 * cv2.GaussianBlur(small, (0, 0), rng.uniform(2, 3) * unit)
    tiny = _down(small)
    tiny = 0.05 * cv2.GaussianBlur(tiny, (0, 0), rng.uniform(1.5, 3) * unit)
    haze += _up(tiny, *small.shape[:2])
    haze *= np.float32(log_uniform(rng, 0.4, 3))
    if rng.random() < 0.3:
        _reflect(scene, small, label, view, rng)
    scene += layer
    scene += _up(haze, view.height, view.width)
    return scene


def _reflect(scene: F32, small: F32, label: U8, view: View, rng: Rng) -> None:
    """Mirror scene and lamps at the horizon into road and pavement, smeared downwards."""
    h, w = small.shape[:2]
    seen = np.minimum(_down(scene) + small, 8)
    horizon = view.horizon * h / view.height
    turn = np.array(((1, 0, 0), (0, -1, 2 * horizon)), np.float32)
    mirror = cv2.warpAffine(seen, turn, (w, h))
    mirror = cv2.GaussianBlur(mirror, (0, 0), 0.6, sigmaY=h * rng.uniform(0.04, 0.12))
    below = (np.arange(h, dtype=np.float32) - horizon).clip(0) / h
    share = rng.uniform(0.15, 0.5) * (0.15 + np.exp(-below / 0.2))  # Fresnel: more at a distance
    puddles = _up(rng.uniform(0.3, 1.2, (8, 5)).astype(np.float32), h, w)
    mirror *= (share[:, None] * puddles)[..., None].astype(np.float32)
    wet = _rgb(((label == ROAD) | (label == PAVEMENT)).astype(np.float32))
    scene *= 1 - wet * np.float32(rng.uniform(0.1, 0.5))
    scene += _up(mirror, view.height, view.width) * wet


def _take(scene: F32, rng: Rng) -> U8:
    """Take the picture: photon and read noise, gain, camera colours, black level, noise filter.

    Noise is normal, at 256 quantiles: random bytes are much faster to draw.
    """
    gain = 2.0 ** rng.uniform(0, 2)
    full_well = rng.uniform(1000, 9000)  # electrons at white, at gain 1
    read = rng.uniform(2, min(12, 2 + full_well / 500))  # electrons; small wells are less noisy
    draw = rng.integers(0, 1 << 64, scene.size // 8 + 1, np.uint64).view(np.uint8)[: scene.size]
    noise = cv2.LUT(draw.reshape(scene.shape), QUANTILES)
    scene *= np.float32(full_well / gain)
    noise *= cv2.sqrt(scene + np.float32(read**2))
    scene += noise
    gray = rng.uniform(0, 0.3)  # cameras desaturate dark images
    colors = (1 - gray) * np.eye(3) + gray * LUMA
    colors *= rng.uniform((0.88, 0.95, 0.85), (1.1, 1.15, 1.08))[:, None] * gain / full_well
    stray = rng.uniform(-0.0012, 0.0016) * rng.uniform(0.7, 1.3, 3)
    scene = cv2.transform(scene, np.column_stack((colors, stray)))
    if rng.random() < 0.6:
        scene = cv2.GaussianBlur(scene, (3, 3), rng.uniform(0.4, 0.9))
    return to_srgb(np.asarray(scene, np.float32))


def _target(image: U8, left: F32, sky: F32, mixed: PixelIndices, view: View) -> U8:
    """Return the day with a dim, smooth sky."""
    end = len(sky)
    down = (np.arange(end, dtype=np.float32) / view.horizon).clip(0, 1)[:, None]
    dim = TARGET_SKY[0] + (TARGET_SKY[1] - TARGET_SKY[0]) * down
    target: U8 = image.copy()
    full = np.repeat(to_srgb(dim)[:, None], sky.shape[1], axis=1)
    cv2.copyTo(full, (sky >= 1).astype(np.uint8), target[:end])
    target[mixed] = to_srgb(left[mixed] + sky[mixed][:, None] * dim[mixed[0]])
    return target
