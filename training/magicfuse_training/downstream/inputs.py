# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The images that the networks of the downstream comparison see, made once and kept on disk.

The vehicle's own runtime makes them, so a network is trained on what it would get on a vehicle.

inputs/SET/PART/label/FRAME.png             the class of every pixel; 255: not known
inputs/SET/PART/clean/FRAME.png             the frame as it is
inputs/SET/PART/INPUT/CONDITION/FRAME.png   what the runtime got, and what it made of that

PART is `train` or `test`, the set's held-out split. Training frames take the conditions in turn,
one each; a held-out frame has every condition. Night frames are used as they are: no clean image of
them is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from rich.progress import track

from magicfuse_ros.fuser import Fuser, Output
from magicfuse_ros.output_files import write_png
from magicfuse_training.arrays import U8
from magicfuse_training.atomic import replaced
from magicfuse_training.data.classes import CLASSES, FOLDER, MFNET, MFNET_CLASSES, to_classes
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import read_image, read_label
from magicfuse_training.data.layout import Record
from magicfuse_training.data.mix import Source
from magicfuse_training.data.scenes import Scenes, resized, square_pixels
from magicfuse_training.metrics.frames import given, groups_of, split_to_score
from magicfuse_training.metrics.restoration import STRENGTHS, Condition, degraded
from magicfuse_training.metrics.score import NIGHT

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
Input = Literal["clean", "degraded", "restored", "MagImg"]
INPUTS: tuple[Input, ...] = get_args(Input)
_MADE: frozenset[Output] = frozenset({"restored", "mag_image"})  # by the runtime


@dataclass(frozen=True)
class Limits:
    """How much of a set is used, and how: the same for every input.

    Attributes:
        conditions: of day frames.
        width: of the images after the runtime, in pixels; None: as they are.
        train_frames: the most frames to train on, spread evenly; None: all.
        test_frames: the most held-out frames, spread evenly; None: all.
    """

    conditions: tuple[Condition, ...]
    width: int | None = None
    train_frames: int | None = None
    test_frames: int | None = None


@dataclass(frozen=True)
class Sample:
    """One frame under one condition; `index` counts the day frames, or the night frames."""

    record: Record
    index: int
    condition: str


class InputSet:
    """The images of one data set."""

    def __init__(self, source: Source, names: Sequence[str], folder: Path, limits: Limits) -> None:
        """Find the frames.

        Args:
            source: the set.
            names: the bundle's classes, which the labels of a user's own folder have.
            folder: folder of the set's images.
            limits: how much of it is used.

        Raises:
            DataError: if the set has no labels, no training split or no held-out split, or if its
                labels are groups of classes.
        """
        self.data, self.folder, self.limits = dataset(source.kind), folder, limits
        labels = self.data.labels
        if labels is None:
            raise DataError(f"{source.kind} has no labels, and a network must learn from some")
        if groups_of(labels):
            raise DataError(
                f"the labels of {source.kind} are groups of classes; expected one class a pixel"
            )
        self.labels = labels
        self.classes = tuple(MFNET_CLASSES if labels is MFNET else CLASSES)
        if labels is FOLDER:
            self.classes = tuple(names)
        self.origin = "pseudo" if "pseudo" in self.data.source else "human"
        splits: dict[Part, str] = {"train": source.training_split, "test": split_to_score(source)}
        self.folders = [source.folder(split) for split in splits.values()]
        if splits["train"] == splits["test"]:
            raise DataError(
                f"'{source.root}' as {source.kind} has the split '{splits['test']}' alone; "
                "expected one to train on, and another one to score"
            )
        self.samples: dict[Part, list[Sample]] = {
            part: self._samples(Scenes(self.data, source.root, split, 1, 1), part)
            for part, split in splits.items()
        }

    def frames(self, part: Part) -> int:
        """Return the number of frames, each counted once."""
        return len({sample.record.name for sample in self.samples[part]})

    def image(self, part: Part, kind: Input, sample: Sample) -> Path:
        """Return the file of an image."""
        middle = "clean" if kind == "clean" else f"{kind}/{sample.condition}"
        return self.folder / part / middle / f"{sample.record.name}.png"

    def label(self, part: Part, sample: Sample) -> Path:
        """Return the file of a sample's label."""
        return self.folder / part / "label" / f"{sample.record.name}.png"

    def missing(self, part: Part) -> list[Sample]:
        """Return the samples whose images, or whose label, are not made yet."""
        return [
            sample
            for sample in self.samples[part]
            if not self.label(part, sample).is_file()
            or not all(self.image(part, kind, sample).is_file() for kind in INPUTS)
        ]

    def make(self, fuser: Fuser) -> None:
        """Make the images that are missing; a later call continues where this one stopped.

        Raises:
            DataError: for a damaged file.
        """
        for part in PARTS:
            about = f"inputs of {self.folder.name}, {part}"
            for sample in track(self.missing(part), description=about):
                self._make(fuser, part, sample)

    def _make(self, fuser: Fuser, part: Part, sample: Sample) -> None:
        record = sample.record
        clean = square_pixels(read_image(record.visible), self.data)
        image = clean
        if sample.condition != NIGHT:
            (condition,) = (c for c in self.limits.conditions if c == sample.condition)
            image = degraded(clean, condition, sample.index)
        fused = fuser(image, _MADE)
        images: dict[Input, U8] = {
            "clean": clean,
            "degraded": image,
            "restored": given(fused.restored),
            "MagImg": given(fused.mag_image),
        }
        for kind, picture in images.items():
            _write(self._sized(picture), self.image(part, kind, sample))
        assert record.label is not None
        ids = to_classes(
            self.labels, read_label(record.label, self.labels), record.label, self.classes
        )
        ids = resized(ids, (clean.shape[0], clean.shape[1]), label=True)
        _write(self._sized(ids, label=True), self.label(part, sample))

    def _sized(self, image: U8, label: bool = False) -> U8:
        height, width = image.shape[:2]
        wanted = self.limits.width
        if wanted is None or wanted == width:
            return image
        how = cv2.INTER_AREA if wanted < width else cv2.INTER_CUBIC
        size = wanted, max(1, round(height * wanted / width))
        resized = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST_EXACT if label else how)
        return np.asarray(resized, np.uint8)

    def _samples(self, scenes: Scenes, part: Part) -> list[Sample]:
        limits = self.limits
        most = limits.train_frames if part == "train" else limits.test_frames
        count = min(len(scenes), most or len(scenes))
        days, nights = 0, 0
        samples = []
        for i in np.linspace(0, len(scenes) - 1, count).round().astype(int).tolist():
            record = scenes.records[i]
            if record.label is None:
                raise DataError(f"frame '{record.name}' of {self.data.kind} has no label")
            if not scenes.is_clean(i):
                samples.append(Sample(record, nights, NIGHT))
                nights += 1
                continue
            # The index also sets the strength, so every condition gets every strength.
            turn = days // len(STRENGTHS) % len(limits.conditions)
            some = limits.conditions if part == "test" else (limits.conditions[turn],)
            samples += [Sample(record, days, condition) for condition in some]
            days += 1
        return samples


def _write(image: U8, path: Path) -> None:
    with replaced(path) as partial:
        write_png(partial, image)
