"""Scores of a bundle on held-out data, measured through the vehicle's own runtime.

Every frame is fused once under every condition: those by day as they are ("clean"), darkened
("dark") and hazy ("haze"), at strengths in turn and with fixed seeds; those by night as they are
("night"). What is measured there depends on what is known of a frame:

    by day                    `restoration`: PSNR; flicker in the dark
    labels                    `segmentation`; `calibration` of the confidence
    labels that people drew   `light`: whether what MagImg lights up is people
    thermal image             `thermal`, clean and by night
    boxes on it               `people_scores`, clean, by night and over both
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import track

from magicfuse_ros.fuser import Fuser, Output
from magicfuse_training.data.classes import CAMVID, to_classes
from magicfuse_training.data.mix import Source
from magicfuse_training.data.scenes import read_image
from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.calibration import Calibration
from magicfuse_training.metrics.frames import Frame, Frames, Measure
from magicfuse_training.metrics.images import psnr, ssim
from magicfuse_training.metrics.light import Light, LightCurve
from magicfuse_training.metrics.people_scores import People
from magicfuse_training.metrics.restoration import (
    CONDITIONS,
    STRENGTHS,
    Flicker,
    Restoration,
    degraded,
)
from magicfuse_training.metrics.segmentation import Confusion, Segmentation
from magicfuse_training.metrics.thermal import Thermal

__all__ = ["CONDITIONS", "STRENGTHS", "Confusion", "as_json", "camvid_label", "psnr", "score_set",
           "score_sets", "ssim", "without_details"]  # fmt: skip

U8 = npt.NDArray[np.uint8]
Scores = dict[str, Any]  # names to numbers, figures, or scores
NIGHT = "night"
DETAILS = ("iou_percent", "group_percent", "light_by_tau")
_DIGITS = 4


def camvid_label(root: Path, split: str, stem: str, names: Sequence[str]) -> U8:
    """Return the mask of a frame of repacked CamVid, in the ids of `names`: see `to_classes`."""
    path = root / split / "label" / f"{stem}.png"
    return to_classes(CAMVID, read_image(path, gray=True), path, names)


def score_sets(
    fuser: Fuser, names: Sequence[str], sources: Iterable[Source], every: int = 1
) -> dict[str, Scores]:
    """Score a bundle on the held-out splits of some sets.

    Args:
        fuser: of the bundle.
        names: the bundle's classes.
        sources: the sets.
        every: n, to take every n-th frame only.

    Returns:
        By the set's folder and split, what `score_set` returns.

    Raises:
        DataError: as `Frames`; all sets are looked at before the first is scored.
    """
    sets: dict[str, Frames] = {}
    for source in sources:
        frames = Frames(source, names, every)
        root = source.root.resolve().name
        name = root if frames.split in (".", "all") else f"{root} {frames.split}"
        sets[name if name not in sets else f"{name}, {source.kind} {len(sets) + 1}"] = frames
    return {name: score_set(fuser, names, frames, name) for name, frames in sets.items()}


def score_set(fuser: Fuser, names: Sequence[str], frames: Frames, description: str) -> Scores:
    """Score a bundle on one set.

    Args:
        fuser: of the bundle.
        names: the bundle's classes.
        frames: of the set.
        description: of the set, shown while it is scored.

    Returns:
        The set's kind, the scores by condition, and those of people over day and night ("both").
    """
    people = {condition: People(names) for condition in ("clean", NIGHT)}
    measures = {c: _measures(c, fuser, names) for c in (*CONDITIONS, NIGHT)}
    for condition, those in people.items():
        measures[condition].append(those)
    counts = dict.fromkeys(measures, 0)
    for frame in track(frames, description=description):
        for condition, image in _images(frame).items():
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
    if counts["clean"] and counts[NIGHT] and (both := (people["clean"] + people[NIGHT]).scores()):
        scores["both"] = both
    return scores


def _measures(condition: str, fuser: Fuser, names: Sequence[str]) -> list[Measure]:
    measures: list[Measure] = [
        Segmentation(names),
        Calibration(len(names)),
        Light(names),
        LightCurve(fuser, names),
        Restoration(),
    ]
    if condition == "dark":
        measures.append(Flicker(fuser))
    if condition in ("clean", NIGHT):
        measures.append(Thermal("thermal_uncertainty" in fuser.outputs))
    return measures


def _images(frame: Frame) -> dict[str, U8]:
    """Return what is fused of a frame, by condition."""
    if frame.night:
        return {NIGHT: frame.visible}
    return {kind: degraded(frame.visible, kind, frame.index) for kind in CONDITIONS}


def as_json(scores: Any) -> Any:
    """Return scores as JSON has them: a figure is [value, low, high]; what is NaN is null."""
    if isinstance(scores, dict):
        return {key: as_json(value) for key, value in scores.items()}
    if isinstance(scores, Figure):
        return [as_json(value) for value in scores]
    if isinstance(scores, float):
        return None if np.isnan(scores) else round(scores, _DIGITS)
    return scores


def without_details(scores: Any) -> Any:
    """Return scores without those by class, by group and over tau."""
    if not isinstance(scores, dict):
        return scores
    return {key: without_details(value) for key, value in scores.items() if key not in DETAILS}
