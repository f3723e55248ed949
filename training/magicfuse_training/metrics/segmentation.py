# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures how right the masks are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_training.arrays import F64, I64, U8, Mask
from magicfuse_training.data.classes import IGNORE, SETS
from magicfuse_training.metrics.bootstrap import figure_of, share
from magicfuse_training.metrics.frames import Frame, Labels, given

# Classes for which coarse masks are reliable; the others are drawn partly or poorly.
COARSE = ("sky", "building", "road", "tree", "car", "pedestrian")
NOT_DRIVABLE = ("sky", "building", "tree")
_SETS = tuple(SETS)
_FEWEST = 2  # classes: with a single one, nothing could be confused
# Frames that must show a class: without it, a resample would have a mean of other classes.
_FEWEST_FRAMES = 5


class Confusion:
    """A confusion matrix; its rows are the truth.

    Rows 0 to C - 1 are classes; the others are the sets of classes in `SETS`, in that order.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matrix = np.zeros((classes + len(_SETS), classes), np.int64)

    def add(self, truth: U8, predicted: U8) -> None:
        """Count the pixels of one frame (H, W); truth 255 is left out."""
        rows = np.full(256, -1, np.int64)
        rows[: self.classes] = np.arange(self.classes)
        rows[list(_SETS)] = self.classes + np.arange(len(_SETS))
        index = rows[truth] * self.classes + predicted
        counts = np.bincount(index[truth != IGNORE], minlength=self.matrix.size)
        self.matrix += counts.reshape(self.matrix.shape)

    def mean_iou(self) -> float:
        """Return the mean IoU of the classes that occur, 0 to 100 %; NaN if none does."""
        return float(mean_iou(self.matrix.astype(np.float64), range(self.classes)))


def iou(matrix: F64) -> F64:
    """Return the intersection over union of every class, 0 to 100 %: (..., R, C) to (..., C).

    It is the number of pixels that are and are called the class, divided by the number that are or
    are called it (10.1007/s11263-014-0733-5). A pixel for which only a set of classes is known
    counts if it is called a class outside of the set. NaN if the class never occurs in the truth.
    """
    classes = matrix.shape[-1]
    exact = matrix[..., :classes, :]
    hit, true = np.diagonal(exact, axis1=-2, axis2=-1), exact.sum(-1)
    wrong = (matrix[..., classes:, :] * ~_allowed(classes)).sum(-2)
    union = true + exact.sum(-2) - hit + wrong
    return np.where(true > 0, 100 * share(hit, union), np.nan)


def mean_iou(matrix: F64, ids: Iterable[int]) -> F64:
    """Return the mean of `iou` over some classes, as far as they occur: (..., R, C) to (...)."""
    return mean_of_known(iou(matrix)[..., list(ids)])


def right_group(matrix: F64, ids: Iterable[int]) -> F64:
    """Return the share of each group that is called one of its classes, 0 to 100 %.

    A class that several groups allow counts as right in each of them.

    Args:
        matrix: see `Confusion`: (..., R, C).
        ids: G groups: classes, or sets of classes.

    Returns:
        (..., G); NaN if a group does not occur.
    """
    classes = matrix.shape[-1]
    allowed = np.concatenate([np.eye(classes, dtype=bool), _allowed(classes)])
    right, all_ = (matrix * allowed).sum(-1), matrix.sum(-1)
    rows = [i if i < classes else classes + _SETS.index(i) for i in ids]
    return 100 * share(right, all_)[..., rows]


def called(matrix: F64, truths: Sequence[int], predicted: int) -> F64:
    """Return the share of some classes that is called another, 0 to 100 %: (..., R, C) to (...).

    NaN if there is no such pixel.
    """
    some = matrix[..., list(truths), :]
    return 100 * share(some[..., predicted].sum(-1), some.sum((-1, -2)))


def _allowed(classes: int) -> Mask:
    """Return which classes each set allows: (sets, C)."""
    return np.array([[c in SETS[s] for c in range(classes)] for s in _SETS])


class Segmentation:
    """Masks against labels.

    miou_percent        mean IoU of the classes that occur in 5 frames or more, 0 to 100 %; for
                        coarse masks, of those for which they are reliable (`COARSE`). See `iou`
    iou_percent         by class
    right_group_percent for sets whose labels are groups of classes: the share of a group's pixels
                        that are called a class of the group, 0 to 100 %, mean over groups
    group_percent       by group
    called_road_percent by night: the share of the pixels of sky, building and tree that are called
                        road, 0 to 100 %, for each and for all together
    """

    outputs: frozenset[Output] = frozenset({"mask"})

    def __init__(self, names: Sequence[str]) -> None:
        """Store the bundle's classes."""
        self.names = list(names)
        self._matrices: list[I64] = []
        self._labels: Labels | None = None
        self._night = False

    def applies(self, frame: Frame) -> bool:
        """Return whether it has a label."""
        return frame.label is not None

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Count the pixels of one frame."""
        confusion = Confusion(len(self.names))
        confusion.add(given(frame.label), given(fused.mask))
        self._matrices.append(confusion.matrix)
        self._labels, self._night = frame.labels, frame.night

    def scores(self) -> dict[str, object]:
        """Return the scores, in percent."""
        if self._labels is None:
            return {}
        matrices = np.asarray(self._matrices, np.float64)
        coarse = self._labels.origin == "coarse by eye"
        ids = [i for i, name in enumerate(self.names) if not coarse or name in COARSE]
        by_class = iou(matrices.sum(0))
        there = [i for i in ids if not np.isnan(by_class[i])]
        frames = (matrices[..., : len(self.names), :].sum(-1) > 0).sum(0)
        often = [i for i in there if frames[i] >= min(_FEWEST_FRAMES, len(matrices))]
        scores: dict[str, object] = {"labels": self._labels.origin}
        if groups := self._labels.groups:
            shares = right_group(matrices.sum(0), groups)
            scores["right_group_percent"] = figure_of(
                matrices, lambda m: mean_of_known(right_group(m, groups))
            )
            by_group = zip(groups.values(), shares.tolist(), strict=True)
            scores["group_percent"] = {name: v for name, v in by_group if not np.isnan(v)}
        elif len(often) >= _FEWEST:
            scores["miou_percent"] = figure_of(matrices, lambda m: mean_iou(m, often))
        if there:
            scores["iou_percent"] = {self.names[i]: float(by_class[i]) for i in there}
        return scores | (self._called_road(matrices) if self._night else {})

    def _called_road(self, matrices: F64) -> dict[str, object]:
        wrong = [i for i, name in enumerate(self.names) if name in NOT_DRIVABLE]
        if "road" not in self.names or not wrong:
            return {}
        road = self.names.index("road")
        of = {self.names[i]: [i] for i in wrong} | {"all": wrong}
        shares = {
            name: figure_of(matrices, partial(called, truths=some, predicted=road))
            for name, some in of.items()
        }
        return {"called_road_percent": shares}


def mean_of_known(values: F64) -> F64:
    """Return the mean over the last axis without NaN: (..., N) to (...)."""
    known = ~np.isnan(values)
    return share(np.where(known, values, 0).sum(-1), known.sum(-1).astype(np.float64))
