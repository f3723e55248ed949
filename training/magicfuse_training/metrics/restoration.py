# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures how much of a degraded scene is recovered, and whether the result flickers."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

import numpy as np

from magicfuse_ros.fuser import FusedFrame, Fuser, Output
from magicfuse_ros.geometry import Geometry, Size
from magicfuse_training.arrays import U8
from magicfuse_training.degradations import Darkness, Degradation, apply, degrade
from magicfuse_training.metrics.bootstrap import figures_of
from magicfuse_training.metrics.frames import Frame, given
from magicfuse_training.metrics.images import luma, ms_ssim, psnr, ssim

Condition = Degradation | Literal["noise"]
CONDITIONS: tuple[Condition, ...] = ("clean", "dark", "haze")
ALL_CONDITIONS: tuple[Condition, ...] = ("clean", "dark", "haze", "rain", "noise")
STRENGTHS = (0.5, 0.75, 1.0)  # of degradations, in turn: mild to severe, the same in every run
FLICKER_EVERY = 10  # frames


def strength_of(index: int) -> float:
    """Return the degradation strength, 0 to 1, of a day frame by its index in its set."""
    return STRENGTHS[index % len(STRENGTHS)]


def degraded(clean: U8, kind: Condition, index: int) -> U8:
    """Return a clean frame (H, W, 3) under a condition, the same in every run.

    "noise" is an exposure 3 to 5 stops too short, which the camera's gain makes up for.
    """
    strength, rng = strength_of(index), np.random.default_rng(index)
    if kind != "noise":
        return degrade(clean, kind, strength, rng)
    stops = 1 + 4 * strength
    return apply([Darkness(stops=stops, gain=2.0**stops)], clean, rng)


class Restoration:
    """Images of a day frame against the clean frame; means over frames.

    psnr_input_db       of the input, dB, 0 to 60: see `images.psnr`
    psnr_restored_db    of the restored image
    psnr_mag_image_db   of MagImg, which also shows heat
    psnr_resized_db     of the clean frame, scaled to the networks' size and back: what a network
                        would get that changes nothing. Only if that size is given
    """

    outputs: frozenset[Output] = frozenset({"restored", "mag_image"})

    def __init__(self, network: Size | None = None) -> None:
        """Store the size of the networks' images."""
        self._network = network
        self._columns = defaultdict[str, list[float]](list)

    def applies(self, frame: Frame) -> bool:
        """Return whether it is clean: a day frame."""
        return not frame.night

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Compare the images of one frame with the clean one."""
        shown = {"input": image, "restored": fused.restored, "mag_image": fused.mag_image}
        for name, x in shown.items():
            self._columns[f"psnr_{name}_db"].append(psnr(given(x), frame.visible))
        if self._network is not None:
            place = Geometry.fit(frame.visible.shape[:2], self._network, "letterbox")
            resized = place.image_back(place.forward(frame.visible))
            self._columns["psnr_resized_db"].append(psnr(resized, frame.visible))

    def scores(self) -> dict[str, object]:
        """Return the scores."""
        return {**figures_of(self._columns)}


class Structure:
    """The luma of the input and of the restored image, against the clean day frame.

    ssim_input, ssim_restored         means over frames, -1 to 1: see `images.ssim`
    ms_ssim_input, ms_ssim_restored   0 to 1; NaN for small frames: see `images.ms_ssim`
    """

    outputs: frozenset[Output] = frozenset({"restored"})

    def __init__(self) -> None:
        self._columns = defaultdict[str, list[float]](list)

    def applies(self, frame: Frame) -> bool:
        """Return whether it is clean: a day frame."""
        return not frame.night

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Compare both images of one frame with the clean one."""
        clean = luma(frame.visible)
        for name, shown in (("input", luma(image)), ("restored", luma(given(fused.restored)))):
            self._columns[f"ssim_{name}"].append(ssim(shown, clean))
            self._columns[f"ms_ssim_{name}"].append(ms_ssim(shown, clean))

    def scores(self) -> dict[str, object]:
        """Return the scores."""
        return {**figures_of(self._columns)}


class Flicker:
    """The difference of two outputs of one dark scene that differ only in their photons.

    Means of |difference| over pixels and channels, 0 to 255, and over every 10th frame.

    flicker_input       of the two dark images
    flicker_mag_image   of the two MagImg
    """

    outputs: frozenset[Output] = frozenset()

    def __init__(self, fuser: Fuser) -> None:
        """Store the fuser, which runs on both."""
        self._fuser = fuser
        self._columns = defaultdict[str, list[float]](list)

    def applies(self, frame: Frame) -> bool:
        """Return whether it is a 10th day frame."""
        return not frame.night and frame.index % FLICKER_EVERY == 0

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Darken one frame twice, fuse both images and compare."""
        first, second = (_draw(frame.visible, frame.index, draw) for draw in range(2))
        fused_twice = (self._fuser(x, frozenset({"mag_image"})) for x in (first, second))
        a, b = (given(frame.mag_image) for frame in fused_twice)
        self._columns["flicker_input"].append(_difference(first, second))
        self._columns["flicker_mag_image"].append(_difference(a, b))

    def scores(self) -> dict[str, object]:
        """Return the scores."""
        return {**figures_of(self._columns)}


def _draw(clean: U8, index: int, draw: int) -> U8:
    """Return a dark scene: the frame sets the exposure, the draw sets the photons."""
    light, photons = np.random.default_rng(index), np.random.default_rng([index, draw])
    return degrade(clean, "dark", strength_of(index), light, sensor=photons)


def _difference(a: U8, b: U8) -> float:
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())
