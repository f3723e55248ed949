# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Held-out frames for scoring: at their own size, with square pixels, and with their labels.

A label image tells a class, or a set of classes one of which is right (`classes.SETS`). Night
frames of a set with coarse masks are scored against those masks alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_training.arrays import U8
from magicfuse_training.data.classes import (
    CLASSES,
    IGNORE,
    LOOKALIKE,
    PROJECT,
    SETS,
    STATIC,
    LabelMap,
    to_classes,
)
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import read_image, read_label, read_thermal
from magicfuse_training.data.layout import DataSet, Record
from magicfuse_training.data.mix import HELD_OUT, Source
from magicfuse_training.data.scenes import Scenes, resized, square_pixels, usual_gain
from magicfuse_training.metrics.people import Box, boxes_of

Origin = Literal["human", "pseudo", "coarse by eye"]


@dataclass(frozen=True)
class Labels:
    """How reliable the label images of a set are.

    Attributes:
        origin: who made them.
        groups: ids and names, if most ids are sets of classes and are scored as such.
    """

    origin: Origin
    groups: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """One frame; uint8 arrays (H, W, 3) or (H, W), all of one size. None: not known.

    Attributes:
        index: its index among the scored day frames, or night frames, of its set.
        visible: RGB.
        label: ids of the bundle's classes, of `SETS`, or IGNORE.
        labels: how reliable the label is.
        thermal: the thermal image as the camera gave it.
        usual: the thermal image at the usual level and gain of MSRS: `usual_gain`.
        people: boxes of people on the thermal image.
        anybody: boxes of people on any image of the scene.
    """

    name: str
    index: int
    night: bool
    visible: U8
    label: U8 | None
    labels: Labels | None
    thermal: U8 | None
    usual: U8 | None
    people: list[Box] | None
    anybody: list[Box]

    @property
    def drawn(self) -> bool:
        """Whether people drew its label."""
        return self.labels is not None and self.labels.origin != "pseudo"


class Measure(Protocol):
    """A measure of the frames of one set under one condition."""

    outputs: frozenset[Output]

    def applies(self, frame: Frame) -> bool:
        """Return whether a frame has what this measure needs."""
        ...

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Measure an applicable frame: `image` is the image that was fused, (H, W, 3)."""
        ...

    def scores(self) -> dict[str, object]:
        """Return the result for all frames so far; empty if there were none."""
        ...


def given(array: U8 | None) -> U8:
    """Return an array that must exist, because the measure asked for it."""
    assert array is not None
    return array


def split_to_score(source: Source) -> str:
    """Return the held-out split of a set, or the whole of a set without splits.

    Raises:
        DataError: if it only has training splits.
    """
    splits = dataset(source.kind).splits_in(source.root)
    held_out = source.held_out_split or next((s for s in splits if s in ("all", ".")), None)
    if held_out is None:
        raise DataError(
            f"'{source.root}' as {source.kind} has the splits {', '.join(splits) or 'none'}; "
            f"scores need one of {', '.join(HELD_OUT)}"
        )
    return held_out


class Frames:
    """The frames of a set's held-out split; each is read when it is scored."""

    def __init__(self, source: Source, names: Sequence[str], every: int = 1) -> None:
        """Find the files.

        Args:
            source: the set.
            names: the bundle's classes, see `to_classes`.
            every: n, to take every n-th day frame and every n-th night frame.

        Raises:
            DataError: see `split_to_score`; also if there is no frame, or a frame lacks a file.
        """
        self.data = dataset(source.kind)
        self.split = split_to_score(source)
        self.names = names
        scenes = Scenes(self.data, source.root, self.split, 1, 1, names)  # for names and nights
        self._records: dict[bool, list[Record]] = {False: [], True: []}
        for i, record in enumerate(scenes.records):
            self._records[not scenes.is_clean(i)].append(record)
        self._every = every
        self._all = self._records
        self._records = {night: some[::every] for night, some in self._records.items()}

    def left_out(self, night: bool) -> list[str]:
        """Return the names of the day frames, or of the night frames, that `every` leaves out."""
        return [r.name for i, r in enumerate(self._all[night]) if i % self._every]

    def names_of(self, night: bool) -> list[str]:
        """Return the names of the day frames, or of the night frames, in order."""
        return [record.name for record in self._records[night]]

    def read(self, index: int, night: bool) -> Frame:
        """Read one frame by its index among the day or night frames; raises like iteration."""
        return self._read(self._records[night][index], index, night)

    def __len__(self) -> int:
        """Return the number of frames."""
        return sum(map(len, self._records.values()))

    def __iter__(self) -> Iterator[Frame]:
        """Read the day frames, then the night frames.

        Raises:
            DataError: for a damaged file, or a label or box that the set does not define.
        """
        for night, records in self._records.items():
            for index in range(len(records)):
                yield self.read(index, night)

    def _read(self, record: Record, index: int, night: bool) -> Frame:
        visible = square_pixels(read_image(record.visible), self.data)
        size = visible.shape[0], visible.shape[1]
        thermal = usual = None
        if record.thermal is not None:
            levels, stretched = read_thermal(record.thermal, self.data.thermal_in_alpha)
            thermal = resized(levels, size)
            usual = usual_gain(thermal) if self.data.auto_gain or stretched else thermal
        label, labels = None, None
        if (found := label_image(self.data, record, night)) is not None:
            path, known, origin = found
            ids = to_classes(known, read_label(path, known), path, self.names)
            label = resized(ids, size, label=True)
            labels = Labels(origin, groups_of(known) if tuple(self.names) == CLASSES else {})
        boxes = boxes_of(self.data, record, size)
        return Frame(
            record.name, index, night, visible, label, labels, thermal, usual, *boxes
        )  # fmt: skip


def label_image(data: DataSet, record: Record, night: bool) -> tuple[Path, LabelMap, Origin] | None:
    """Return the label file that a frame is scored against, its content, and who made it."""
    if night and "coarse" in data.templates:
        return None if record.coarse is None else (record.coarse, PROJECT, "coarse by eye")
    if record.label is None or data.labels is None:
        return None
    return record.label, data.labels, "pseudo" if "pseudo" in data.source else "human"


def groups_of(labels: LabelMap) -> dict[int, str]:
    """Return the ids and names of groups if most of the ids are sets of classes; else nothing."""
    names = {target: name for name, target in labels.classes.values() if target != IGNORE}
    sets = names.keys() & (SETS.keys() - {STATIC, LOOKALIKE})
    return names if 2 * len(sets) > len(names) else {}
