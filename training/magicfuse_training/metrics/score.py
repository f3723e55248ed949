# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Scores of a bundle on held-out data, measured through the vehicle's own runtime.

Every frame is fused once under every condition: day frames as they are ("clean"), darkened ("dark")
and hazy ("haze"), with strengths in turn and fixed seeds; night frames as they are ("night").
`evaluation` adds conditions, measures and a report. What is measured depends on what is known about
a frame:

    by day                    `restoration`: PSNR; flicker in the dark
    labels                    `segmentation`; `calibration` of the confidence
    labels that people drew   `light`: whether MagImg lights up people
    thermal image             `thermal`, clean and by night
    boxes on it               `people_scores`, clean, by night and over both
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from magicfuse_ros.fuser import Fuser, Output
from magicfuse_training.arrays import U8
from magicfuse_training.data.classes import CAMVID, to_classes
from magicfuse_training.data.files import read_image
from magicfuse_training.data.mix import Source
from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.calibration import Calibration
from magicfuse_training.metrics.frames import Frame, Frames, Measure
from magicfuse_training.metrics.light import Light, LightCurve
from magicfuse_training.metrics.people_scores import People
from magicfuse_training.metrics.restoration import (
    CONDITIONS,
    Condition,
    Flicker,
    Restoration,
    degraded,
)
from magicfuse_training.metrics.segmentation import Segmentation
from magicfuse_training.metrics.thermal import Thermal
from magicfuse_training.metrics.thermal_detail import WHOLE, relation

Scores = dict[str, Any]  # names to numbers, figures, or scores
NIGHT = "night"
DETAILS = ("iou_percent", "group_percent", "light_by_tau", "reliability", "images", "lit_percent")
_DIGITS = 4


def camvid_label(root: Path, split: str, stem: str, names: Sequence[str]) -> U8:
    """Return the mask of a frame of repacked CamVid, in the ids of `names`: see `to_classes`."""
    path = root / split / "label" / f"{stem}.png"
    return to_classes(CAMVID, read_image(path, gray=True), path, names)


@dataclass(frozen=True)
class Suite:
    """The selection of measures.

    Attributes:
        conditions: conditions for day frames; night frames are always as they are.
        measures: makes the measures of a set under one of these conditions, or under NIGHT.
    """

    conditions: tuple[Condition, ...]
    measures: Callable[[Frames, str], list[Measure]]


def short_suite(fuser: Fuser, names: Sequence[str]) -> Suite:
    """Return the measures of `magicfuse-train score`, which a model card shows."""

    def of(frames: Frames, condition: str) -> list[Measure]:
        some = basic_measures(fuser, names, condition)
        return [*some, People(names)] if condition in ("clean", NIGHT) else some

    return Suite(CONDITIONS, of)


def open_sets(
    sources: Iterable[Source], names: Sequence[str], every: int = 1, trained: Sequence[str] = ()
) -> dict[str, Frames]:
    """Find the frames of the held-out splits of some sets, by the set's folder and split.

    If the bundle was trained on a split, or on a part of it, the set's name says so.

    Args:
        sources: the sets.
        names: the bundle's classes.
        every: n, to take only every n-th frame.
        trained: the data in the bundle's provenance.

    Raises:
        DataError: see `Frames`.
    """
    sets: dict[str, Frames] = {}
    for source in sources:
        frames = Frames(source, names, every)
        root = source.root.resolve().name
        name = root if frames.split in (".", "all") else f"{root} {frames.split}"
        known = relation(trained, source.kind, frames.split)
        if known == "trained on":
            name += " (trained on)"
        elif known == "not recorded" and trained and frames.split in WHOLE:
            name += " (perhaps trained on)"
        sets[name if name not in sets else f"{name}, {source.kind} {len(sets) + 1}"] = frames
    return sets


def score_set(fuser: Fuser, suite: Suite, frames: Frames, description: str) -> Scores:
    """Score a bundle on one set.

    Args:
        fuser: runs the bundle.
        suite: the measures.
        frames: frames of the set.
        description: text for the set, shown during scoring.

    Returns:
        The set's kind, the scores by condition, and the people scores over day and night ("both").
    """
    measures = {c: suite.measures(frames, c) for c in (*suite.conditions, NIGHT)}
    counts = dict.fromkeys(measures, 0)
    for frame in track(frames, description=description):
        for condition, image in images_of(frame, suite.conditions).items():
            fitting = [measure for measure in measures[condition] if measure.applies(frame)]
            if not fitting:
                continue
            wanted: frozenset[Output] = frozenset().union(*(m.outputs for m in fitting))
            fused = fuser(image, wanted)
            for measure in fitting:
                measure.add(frame, image, fused)
            counts[condition] += 1
    scores: Scores = {"kind": frames.data.kind}
    for condition, count in counts.items():
        if count:
            scores[condition] = {"frames": count}
            for measure in measures[condition]:
                scores[condition] |= measure.scores()
    if counts["clean"] and counts[NIGHT]:
        by_day, by_night = (
            next(m for m in measures[c] if isinstance(m, People)) for c in ("clean", NIGHT)
        )
        if both := (by_day + by_night).scores():
            scores["both"] = both
    return scores


def basic_measures(fuser: Fuser, names: Sequence[str], condition: str) -> list[Measure]:
    """Return the measures of a set under a condition that `score` and `evaluate` share."""
    measures: list[Measure] = [
        Segmentation(names),
        Calibration(len(names)),
        Light(names),
        LightCurve(fuser, names),
        Restoration(fuser.size if condition == "clean" else None),
    ]
    if condition == "dark":
        measures.append(Flicker(fuser))
    if condition in ("clean", NIGHT):
        measures.append(Thermal("thermal_uncertainty" in fuser.outputs))
    return measures


def images_of(frame: Frame, conditions: Sequence[Condition]) -> dict[str, U8]:
    """Return the images of a frame to fuse, by condition."""
    if frame.night:
        return {NIGHT: frame.visible}
    return {kind: degraded(frame.visible, kind, frame.index) for kind in conditions}


def as_json(scores: Any) -> Any:
    """Return scores for JSON: a figure becomes [value, low, high], and NaN becomes null."""
    if isinstance(scores, dict):
        return {key: as_json(value) for key, value in scores.items()}
    if isinstance(scores, list | Figure):
        return [as_json(value) for value in scores]
    if isinstance(scores, float):
        return None if np.isnan(scores) else round(scores, _DIGITS)
    return scores


def without_details(scores: Any) -> Any:
    """Return scores without those by class, by group and over tau."""
    if not isinstance(scores, dict):
        return scores
    return {key: without_details(value) for key, value in scores.items() if key not in DETAILS}
