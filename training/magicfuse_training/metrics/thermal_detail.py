# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures how far the thermal estimate generalises: by set, class and frame.

Frames of a training split and of the held-out split are compared alike, so that memorised scenes
show. Every scene is fitted into the bundle's size. Real images of cameras with automatic
gain are at the usual level and gain of MSRS (`usual_gain`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from magicfuse_ros.fuser import FusedFrame
from magicfuse_training.arrays import F64, I64
from magicfuse_training.data.datasets import DATASETS
from magicfuse_training.data.scenes import Scene, known_classes
from magicfuse_training.metrics.bootstrap import Figure, figure_of, share
from magicfuse_training.metrics.frames import given
from magicfuse_training.metrics.images import luma
from magicfuse_training.metrics.thermal import correlation, needed_interval, within_range

Relation = Literal["trained on", "same set", "unknown set", "not recorded"]

WHOLE = (".", "all", "*")  # splits of sets that have none; any split
PERCENTS = np.arange(5, 100, 5)  # of the stated intervals whose content is counted
FEWEST = 200  # pixels of a class that a frame must have to tell of the class
# Sums over the pixels of one class in one frame, of deviations from their mean in the frame.
PIXELS, ERROR, BIAS, XX, YY, XY, INSIDE, KNOWN = range(8)  # KNOWN: not cut off at 0 or 255


def relation(trained: Sequence[str], kind: str, split: str) -> Relation:
    """Return what a bundle knows about a split: from the data in its provenance (`mix.describe`).

    Args:
        trained: "KIND, split SPLIT: ..." for every set that the bundle was trained on.
        kind: kind of the set.
        split: the split. It counts as trained on if a part of it was.
    """
    if not trained:
        return "not recorded"
    if kind == "folder" and any(line.startswith("folder,") for line in trained):
        return "not recorded"  # which folder it was
    ours, found = _splits(kind, split), False
    for line in trained:
        name, comma, rest = line.partition(":")[0].partition(", split ")
        theirs = _splits(name, rest) if comma else {}
        shared = ours.keys() & theirs.keys()
        if shared and all(_overlap(ours[one], theirs[one]) for one in shared):
            return "trained on"
        found = found or bool(shared)
    return "same set" if found else "unknown set"


def _splits(kind: str, split: str) -> dict[str, str]:
    """Return the kinds that have the frames of a split, and its name or "*" in each."""
    others = DATASETS[kind].taken_from if kind in DATASETS else {}
    return {kind: split, **{other: part or split for other, part in others.items()}}


def _overlap(a: str, b: str) -> bool:
    return a == b or not {a, b}.isdisjoint(WHOLE)


def distances(names: Sequence[str], trained: Sequence[str]) -> list[int | None]:
    """Return how far each frame is from the nearest training frame, in frame numbers.

    A frame's number is the last one in its name: files of these sets are numbered in the order in
    which they were taken. What precedes it names the recording: numbers from different recordings
    cannot be compared. None if a name has no number, or no training frame is from its recording.
    """
    numbers: dict[str, list[int]] = {}
    for recording, number in filter(None, map(_numbered, trained)):
        numbers.setdefault(recording, []).append(number)
    found: list[int | None] = []
    for name in names:
        recording, number = _numbered(name) or ("", 0)
        others = numbers.get(recording) if _numbered(name) else None
        found.append(min(abs(other - number) for other in others) if others else None)
    return found


def _numbered(name: str) -> tuple[str, int] | None:
    """Return what stands before the last number in a name, and the number."""
    found = re.fullmatch(r"(.*?)(\d+)\D*", name, re.DOTALL)
    return (found[1], int(found[2])) if found else None


@dataclass(frozen=True)
class Compared:
    """A frame's estimate against its real thermal image.

    Attributes:
        name: of the frame.
        correlation: of the estimate, -1 to 1.
        correlation_visible: of the gray visible image.
        error: mean absolute error, gray levels.
        levels: number of pixels of the real image at each level, (256,).
        inside: share of the pixels inside of each interval of PERCENTS, 0 to 1; None if the bundle
            states no uncertainty, or the real image is cut off everywhere.
        classes: sums by class (classes, 8), see PIXELS; zeros for a class with fewer than FEWEST.
        between: the sums XX, YY, XY of the classes' means, (3,).
    """

    name: str
    correlation: float
    correlation_visible: float
    error: float
    levels: I64
    inside: F64 | None
    classes: F64
    between: F64


def compare(scene: Scene, fused: FusedFrame, classes: int) -> Compared:
    """Compare the estimate of one scene; `classes` is the number of the bundle's classes."""
    real, estimate = given(scene.thermal), given(fused.thermal_estimate)
    error = estimate.astype(np.float64) - real
    needed = None
    if fused.thermal_uncertainty is not None:
        needed = needed_interval(estimate, fused.thermal_uncertainty, real)
        needed[~within_range(real)] = np.nan
    label = known_classes(scene.label, scene.teacher)
    sums = np.zeros((classes, 8))
    means = []
    for i in range(classes):
        mask = label == i
        if (pixels := int(mask.sum())) < FEWEST:
            continue
        x, y = estimate[mask].astype(np.float64), real[mask].astype(np.float64)
        means.append((pixels, x.mean(), y.mean()))
        x, y = x - x.mean(), y - y.mean()
        stated = np.zeros(0) if needed is None else needed[mask & ~np.isnan(needed)]
        off = error[mask]
        within = (stated <= 90).sum(), stated.size
        sums[i] = pixels, np.abs(off).sum(), off.sum(), x @ x, y @ y, x @ y, *within
    return Compared(
        scene.name,
        correlation(estimate, real),
        correlation(luma(scene.visible), real),
        float(np.abs(error).mean()),
        np.bincount(real.ravel(), minlength=256),
        None if needed is None or np.isnan(needed).all() else _contents(needed),
        sums,
        _between(np.array(means)) if means else np.zeros(3),
    )


def _contents(needed: F64) -> F64:
    """Return the share of the known pixels within each of the `PERCENTS` intervals."""
    known = needed[~np.isnan(needed)]
    return np.asarray((known[:, None] <= PERCENTS).mean(0), np.float64)


def _between(means: F64) -> F64:
    pixels, x, y = means.T
    x, y = (v - np.average(v, weights=pixels) for v in (x, y))
    return np.array([(pixels * a).sum() for a in (x * x, y * y, x * y)])


@dataclass
class Part:
    """The frames of one split of a set under one condition, as one bundle estimates them.

    Attributes:
        name: name of the set.
        split: its split.
        night: whether its frames are at night.
        relation: what the bundle knows about them.
        frames: the compared frames.
        distances: see `distances`; None without training frames of the set.
    """

    name: str
    split: str
    night: bool
    relation: Relation
    frames: list[Compared] = field(default_factory=list)
    distances: list[int | None] = field(default_factory=list)

    @property
    def scene(self) -> str:
        """Name of the set, and the time of the day."""
        return f"{self.name}, {'night' if self.night else 'day'}"

    @property
    def title(self) -> str:
        """Name of the set, its split if it has some, and the time of the day."""
        split = "" if self.split in (".", "all") else f" {self.split}"
        return f"{self.name}{split}, {'night' if self.night else 'day'}"

    def mean(self, key: str) -> Figure:
        """Return the mean of a number over the frames."""
        return figure_of([getattr(frame, key) for frame in self.frames])

    def inside(self) -> F64 | None:
        """Return the content of the intervals of PERCENTS, 0 to 1; None if none are stated."""
        known = [frame.inside for frame in self.frames if frame.inside is not None]
        return np.mean(known, axis=0) if known else None

    def constant_error(self) -> float:
        """Return the mean absolute error of the best constant image, chosen on these frames."""
        counts = np.sum([frame.levels for frame in self.frames], axis=0)
        levels = np.arange(256)
        errors = np.abs(levels[:, None] - levels) @ counts / counts.sum()
        return float(errors.min())

    def by_class(self, index: int) -> dict[str, Figure] | None:
        """Return the scores of one class; None if it is nowhere.

        pixels        share of the pixels with a known class, 0 to 100 %
        error         mean absolute error, gray levels
        bias          mean of estimate - real image, gray levels
        correlation   within the class and frame: see `within`
        inside        pixels inside of the stated 90 % interval, 0 to 100 %; NaN if none is stated
        """
        sums = np.array([frame.classes[index] for frame in self.frames])
        if not sums[:, PIXELS].any():
            return None
        known = float(sum(frame.classes[:, PIXELS].sum() for frame in self.frames))
        pixels = 100 * float(sums[:, PIXELS].sum()) / known
        return {
            "pixels": Figure(pixels, pixels, pixels),
            "error": _ratio(sums, ERROR),
            "bias": _ratio(sums, BIAS),
            "correlation": _correlation(sums[:, [XX, YY, XY]]),
            "inside": _ratio(sums, INSIDE, KNOWN, 100),
        }

    def within(self) -> Figure:
        """Return the correlation within classes: of deviations from the class's mean in the frame.

        0: the estimate only knows how warm each class is on average.
        """
        sums = [frame.classes[:, [XX, YY, XY]].sum(0) for frame in self.frames]
        return _correlation(np.array(sums))

    def between(self) -> Figure:
        """Return the correlation of the classes' means, within frames, by number of pixels."""
        return _correlation(np.array([frame.between for frame in self.frames]))


def _ratio(sums: F64, part: int, whole: int = PIXELS, times: float = 1.0) -> Figure:
    return figure_of(sums[:, [part, whole]], lambda m: times * share(m[:, 0], m[:, 1]))


def _correlation(sums: F64) -> Figure:
    """Return a correlation from its sums XX, YY, XY by frame."""
    return figure_of(sums, lambda m: share(m[:, 2], np.sqrt(m[:, 0] * m[:, 1])))
