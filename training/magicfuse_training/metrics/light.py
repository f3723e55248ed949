# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures whether the pixels that MagImg lights up are people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from magicfuse_ros.fuser import FusedFrame, Fuser, Output
from magicfuse_training.arrays import F64, U8, Mask
from magicfuse_training.data.classes import IGNORE, PEOPLE, RIDERS, SETS
from magicfuse_training.metrics.bootstrap import figure_of, share
from magicfuse_training.metrics.frames import Frame, given
from magicfuse_training.metrics.images import luma

LIT = 20  # levels of luma, of 255
WIDENED = 5  # pixels to each side, at the frame's size: light may spread a little beyond a person
TAUS = (0.3, 0.45, 0.6, 0.75, 0.9)
CURVE_EVERY = 4  # frames


def is_lit(mag_image: U8, restored: U8) -> Mask:
    """Return where MagImg's luma is LIT above the restored image's, (H, W) from (H, W, 3)."""
    return luma(mag_image).astype(np.int16) - luma(restored) >= LIT


def people_in_label(label: U8, ids: Sequence[int]) -> tuple[Mask, Mask]:
    """Return masks (H, W): which pixels are people, and for which pixels the label can tell.

    `ids` are the classes of people. A set of classes tells if all or none of its classes are
    people.
    """
    people, known = np.zeros(256, bool), np.ones(256, bool)
    people[list(ids)] = True
    known[IGNORE] = False
    for group, classes in SETS.items():
        people[group] = set(classes) <= set(ids)
        known[group] = people[group] or not set(classes) & set(ids)
    return people[label], known[label]


def without_parked(frame: Frame, riders: Sequence[int]) -> U8:
    """Return a frame's label (H, W), void where it may show a bicycle without a rider.

    The coarse masks draw bicycles that nobody rides; those by hand draw rider and bicycle as one.
    """
    label = given(frame.label)
    if frame.labels is None or frame.labels.origin != "coarse by eye":
        return label
    return np.where(np.isin(label, riders), np.uint8(IGNORE), label)


def count_light(lit: Mask, people: Mask, known: Mask) -> tuple[int, int, int, int, int]:
    """Count pixels of one frame, all (H, W).

    Returns:
        Lit pixels on people (widened), lit pixels, lit pixels on people (not widened), pixels of
        people, all without unknown pixels; and pixels known to be nobody.
    """
    side = 2 * WIDENED + 1
    near = cv2.dilate(people.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
    lit = lit & known
    sums = (lit & near, lit, lit & people, people, known & ~people)
    return tuple(int(np.count_nonzero(x)) for x in sums)  # type: ignore[return-value]


def precision(counts: F64) -> F64:
    """Return the share of light that is on people, 0 to 1: (..., 5) to (...); NaN without light.

    Also NaN if no pixel is known to be nobody: light could then not be wrong.
    """
    wrong_possible = counts[..., 4] > 0
    return np.where(wrong_possible, share(counts[..., 0], counts[..., 1]), np.nan)


def recall(counts: F64) -> F64:
    """Return the share of people that is lit, 0 to 1: (..., 5) to (...); NaN without people."""
    return share(counts[..., 2], counts[..., 3])


class Light:
    """Light on people and elsewhere, by hand-drawn masks; precision and recall, 0 to 1.

    A pixel is lit if the luma of MagImg is at least 20 of 255 above that of the restored image.

    light_precision            share of the lit pixels that are on people, widened by 5 pixels to
                               each side; people are pedestrians, and what the labels call
                               bicyclist: riders with their bicycles, and on Cityscapes bicycles
                               without riders, too. Void is left out
    light_recall               share of the pixels of people, not widened, that are lit
    light_..._pedestrians      the same, counting only pedestrians as people
    """

    outputs: frozenset[Output] = frozenset({"restored", "mag_image"})

    def __init__(self, names: Sequence[str]) -> None:
        """Store the bundle's classes."""
        alone = [i for i, name in enumerate(names) if name in PEOPLE]
        riders = [i for i, name in enumerate(names) if name in RIDERS]
        self._riders = riders
        self._ids = {"": alone + riders, "_pedestrians": alone}
        self._counts: dict[str, list[tuple[int, ...]]] = {key: [] for key in self._ids}

    def applies(self, frame: Frame) -> bool:
        """Return whether people drew the label."""
        return frame.drawn

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Count the pixels of one frame."""
        lit = is_lit(given(fused.mag_image), given(fused.restored))
        label = without_parked(frame, self._riders)
        for key, ids in self._ids.items():
            people, known = people_in_label(label, ids)
            self._counts[key].append(count_light(lit, people, known))

    def scores(self) -> dict[str, object]:
        """Return the scores if the labels have people."""
        scores: dict[str, object] = {}
        for key, counts in self._counts.items():
            if counts and any(row[3] for row in counts):
                scores[f"light_precision{key}"] = figure_of(counts, precision)
                scores[f"light_recall{key}"] = figure_of(counts, recall)
        return scores


class LightByClass:
    """The pixels that MagImg lights up, by hand-drawn class; a pixel is lit as in `Light`.

    lit_percent   by class: its share of all lit pixels, 0 to 100 %. Sets of classes and unlabelled
                  pixels are left out
    """

    outputs: frozenset[Output] = frozenset({"restored", "mag_image"})

    def __init__(self, names: Sequence[str]) -> None:
        """Store the bundle's classes."""
        self._names = list(names)
        self._lit = np.zeros(len(names), np.int64)

    def applies(self, frame: Frame) -> bool:
        """Return whether people drew the label."""
        return frame.drawn

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Count the lit pixels of one frame."""
        label = given(frame.label)[is_lit(given(fused.mag_image), given(fused.restored))]
        self._lit += np.bincount(label, minlength=256)[: len(self._names)]

    def scores(self) -> dict[str, object]:
        """Return the shares if anything is lit."""
        if not (total := int(self._lit.sum())):
            return {}
        lit = zip(self._names, self._lit.tolist(), strict=True)
        return {"lit_percent": {name: 100 * count / total for name, count in lit}}


class LightCurve:
    """Precision and recall of the light over tau, on every 4th day frame; see `Light`.

    light_by_tau   by tau: precision and recall, 0 to 1
    """

    outputs: frozenset[Output] = frozenset({"restored", "mag_image"})

    def __init__(self, fuser: Fuser, names: Sequence[str], taus: Iterable[float] = TAUS) -> None:
        """Store the bundle's classes and the fuser, which runs at each tau."""
        self._fuser = fuser
        self._ids = [i for i, name in enumerate(names) if name in (*PEOPLE, *RIDERS)]
        self._counts: dict[float, list[tuple[int, ...]]] = {tau: [] for tau in taus}

    def applies(self, frame: Frame) -> bool:
        """Return whether it is one of every 4 day frames, with exact hand-drawn classes."""
        if not frame.drawn or frame.night or frame.index % CURVE_EVERY:
            return False
        return frame.labels is not None and not frame.labels.groups

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Fuse one frame at every tau and count its pixels."""
        people, known = people_in_label(given(frame.label), self._ids)
        own = self._fuser.tau
        for tau, counts in self._counts.items():
            mag_image = given(fused.mag_image)
            if tau != own:  # only MagImg depends on it
                self._fuser.tau = tau
                mag_image = given(self._fuser(image, frozenset({"mag_image"})).mag_image)
            counts.append(count_light(is_lit(mag_image, given(fused.restored)), people, known))
        self._fuser.tau = own

    def scores(self) -> dict[str, object]:
        """Return the curve if the labels have people."""
        curve = {}
        for tau, counts in self._counts.items():
            if counts and any(row[3] for row in counts):
                sums = np.asarray(counts, np.float64).sum(0, keepdims=True)
                curve[str(tau)] = {
                    "precision": float(precision(sums)[0]),
                    "recall": float(recall(sums)[0]),
                }
        return {"light_by_tau": curve} if curve else {}
