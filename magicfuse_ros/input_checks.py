# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Cheap checks for images that are unfit for use: black, saturated, frozen or blurred.

They look at a fixed number of pixels of the green channel, whatever the size of the image: a coarse
grid over the whole image and a few full-resolution patches. All limits let two hard cases pass: a
dark night frame, which has few but bright lights, and a smooth one, which has no detail to lose.

    black      the brightest 0.1 % are below `BLACK`
    saturated  more than `SATURATED` of the image is at the top of the scale
    frozen     the grid equals the previous image's, `FROZEN` times in a row; because of sensor
               noise, a running camera almost never delivers two equal images
    blurred    detail is lost everywhere: the mean square difference of pixels 4 apart is more than
               `BLURRED` times that of neighbours, in the sharpest of the patches that have any
               contrast. The ratio is 1 for noise, about 4 for sharp edges and 16 for a slope.
               Checked twice a second, because it costs more than the others and changes slowly
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from magicfuse_ros.image_codec import Pixels

BLACK = 12  # of 255
SATURATED = 0.4
FROZEN = 10
BLURRED = 10.0
WINDOW_S = 10.0
SOFTNESS_EVERY_S = 0.5
SHARE = 0.5  # of the window's images that must fail before a check warns
_TOP = 252
_GRID_PIXELS = 20_000
_PATCHES = 5  # per side
_PATCH = 48  # pixels per side
_LEAST_CONTRAST = 40.0  # squared difference in gray levels between pixels 4 apart


@dataclass(frozen=True)
class Measures:
    """The statistics of one image.

    Attributes:
        mean: mean gray level, 0 to 255.
        brightest: gray level that 0.1 % of the pixels exceed.
        saturated: fraction of the image at the top of the scale, 0 to 1.
        softness: see `blurred` above, for the image that was checked last; None if that image has
            too little contrast.
        repeats: number of equal images directly before this one.
    """

    mean: float
    brightest: int
    saturated: float
    softness: float | None
    repeats: int

    def faults(self) -> dict[str, str]:
        """Return the failed checks, each with the value that shows the fault."""
        found = {}
        if self.brightest < BLACK:
            found["black"] = f"brightest gray level {self.brightest} of 255"
        if self.saturated > SATURATED:
            found["saturated"] = f"{self.saturated:.0%} of the pixels"
        if self.repeats >= FROZEN:
            found["frozen"] = f"the same image {self.repeats + 1} times"
        if self.softness is not None and self.softness > BLURRED:
            found["blurred"] = f"softness {self.softness:.1f}, limit {BLURRED:.0f}"
        return found


class InputChecks:
    """Measures every image and keeps the faults of the last `WINDOW_S` seconds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window: deque[tuple[float, Measures, Mapping[str, str]]] = deque()
        self._last: Pixels | None = None
        self._repeats = 0
        self._softness: float | None = None
        self._next_softness = -math.inf

    def add(self, image: Pixels, now: float) -> Measures:
        """Measure an image.

        Args:
            image: [H, W, 3] uint8 RGB with at least one pixel; not changed.
            now: time in seconds of a steady clock.
        """
        green = image[:, :, 1]
        grid = _grid(green)
        same = self._last is not None and np.array_equal(grid, self._last)
        self._repeats = self._repeats + 1 if same else 0
        self._last = grid
        if now >= self._next_softness:
            self._softness, self._next_softness = _softness(green), now + SOFTNESS_EVERY_S
        histogram = np.bincount(grid.ravel(), minlength=256)
        from_top = np.cumsum(histogram[::-1])
        measures = Measures(
            mean=float(histogram @ np.arange(256)) / grid.size,
            brightest=255 - int(np.searchsorted(from_top, grid.size / 1000, side="right")),
            saturated=float(histogram[_TOP:].sum()) / grid.size,
            softness=self._softness,
            repeats=self._repeats,
        )
        with self._lock:
            self._window.append((now, measures, measures.faults()))
            self._forget(now)
        return measures

    def latest(self, now: float) -> Measures | None:
        """Return the measures of the latest image; None if the window is empty."""
        with self._lock:
            self._forget(now)
            return self._window[-1][1] if self._window else None

    def warnings(self, now: float, frozen: bool = True) -> list[str]:
        """Return one sentence for every check that failed in more than half of the window.

        `frozen`: whether repeated images are a fault.
        """
        with self._lock:
            self._forget(now)
            faults = [faults for _, _, faults in self._window]
        sentences = []
        for check in ("black", "saturated", *(["frozen"] if frozen else []), "blurred"):
            figures = [found[check] for found in faults if check in found]
            # Frozen needs no majority: the check itself covers a run of images.
            if figures and (check == "frozen" and check in faults[-1]):
                sentences.append(f"images are frozen ({figures[-1]})")
            elif len(figures) > SHARE * len(faults):
                sentences.append(f"images are {check} ({figures[-1]})")
        return sentences

    def _forget(self, now: float) -> None:
        while self._window and self._window[0][0] < now - WINDOW_S:
            self._window.popleft()


def _grid(plane: Pixels) -> Pixels:
    step = min(max(1, round((plane.size / _GRID_PIXELS) ** 0.5)), *plane.shape)
    return np.ascontiguousarray(plane[step // 2 :: step, step // 2 :: step])


def _softness(plane: Pixels) -> float | None:
    rows, columns = plane.shape
    if min(rows, columns) < _PATCHES * _PATCH // 2:
        return None  # too small to have detail
    tops = np.linspace(0, rows - _PATCH, _PATCHES).astype(int)
    lefts = np.linspace(0, columns - _PATCH, _PATCHES).astype(int)
    patches = np.stack(
        [plane[top : top + _PATCH, left : left + _PATCH] for top in tops for left in lefts]
    ).astype(np.float32)
    near, far = (
        np.square(patches[:, lag:] - patches[:, :-lag]).mean((1, 2))
        + np.square(patches[:, :, lag:] - patches[:, :, :-lag]).mean((1, 2))
        for lag in (1, 4)
    )
    judged = far > 2 * _LEAST_CONTRAST
    if not judged.any():
        return None
    return float(np.min(far[judged] / np.maximum(near[judged], 1e-3)))
