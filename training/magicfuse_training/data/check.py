# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks every file of a data set: what is there, what is missing, what is damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from magicfuse_training.arrays import U8
from magicfuse_training.data.classes import PROJECT, LabelMap
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import read_label, read_objects, read_picture, rgb_of, thermal_of
from magicfuse_training.data.layout import PARTS, DataSet, Part, Record

WidthHeight = tuple[int, int]  # width, height
_ASPECT_TOLERANCE = 0.01


@dataclass
class SplitReport:
    """The findings on one split.

    Attributes:
        split: its name.
        counts: files of each part; an omitted part is not listed.
        sizes: number of images of each size, by part.
        depths: number of thermal images of each bit depth.
        labels: pixels of every label id.
        boxes: boxes of every name.
        stretched: number of thermal images that were stretched; see `read_thermal`.
        left_out: files and folders that belong to no part.
        faults: the affected files or scenes, by kind of fault.
        sound: the scenes without a fault.
    """

    split: str
    counts: dict[Part, int] = field(default_factory=dict)
    sizes: dict[Part, Counter[WidthHeight]] = field(default_factory=dict)
    depths: Counter[str] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    stretched: int = 0
    left_out: list[Path] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    sound: list[Record] = field(default_factory=list)

    def fault(self, kind: str, what: str) -> None:
        """Record one fault."""
        self.faults.setdefault(kind, []).append(what)


def check_split(
    data: DataSet, root: Path, split: str, done: Callable[[int, int], None] = lambda *_: None
) -> SplitReport:
    """Read all files of a split; call `done` after every scene with the count and the total.

    Raises:
        DataError: for an unknown split, or a split whose files cannot be listed.
    """
    index = data.index(root, split)
    left_out = data.left_out(root, split)
    report = SplitReport(split, {part: len(files) for part, files in index.files.items()})
    report.left_out = [path.relative_to(root) for path in left_out]
    for part in PARTS:
        for name in index.missing.get(part, ()):
            report.fault(f"{part} missing", data.expected(part, split, [name]))
        for name in index.orphans.get(part, ()):
            report.fault(f"{part} without a visible image", data.expected(part, split, [name]))
    for i, name in enumerate(index.names):
        files = {part: there[name] for part, there in index.files.items() if name in there}
        complete = files.keys() >= index.files.keys() - data.partial
        if _check_scene(report, data, root, files) and complete:
            report.sound.append(index.record(name))
        done(i + 1, len(index.names))
    return report


def _check_scene(report: SplitReport, data: DataSet, root: Path, files: dict[Part, Path]) -> bool:
    """Read the files of a scene; return whether all of them are valid."""
    before = sum(map(len, report.faults.values()))
    sizes: dict[Part, WidthHeight] = {}
    for part, path in files.items():
        shown = path.relative_to(root).as_posix()
        try:
            # YOLO writes an empty text file for an image without boxes.
            if path.stat().st_size == 0 and path.suffix.lower() != ".txt":
                report.fault("empty", shown)
            elif part == "boxes":
                width, height = sizes.get("visible", (1, 1))
                names, _ = read_objects(path, height, width)
                report.boxes.update(names)
                for name in sorted(set(names) - set(data.boxes)):
                    report.fault("unknown box name", f"{name} in {shown}")
            elif part in ("label", "coarse", "teacher"):
                labels = data.labels if part == "label" else PROJECT
                assert labels is not None, f"{data.kind} has label files and no label map"
                ids = read_label(path, labels)
                sizes[part] = _size(ids)
                if part == "label":
                    _count_labels(report, labels, ids, shown)
            else:
                picture = read_picture(path)
                sizes[part] = _size(picture)
                if part == "visible":
                    rgb_of(picture, path)
                else:
                    _check_thermal(report, data, picture, path, shown)
            if part in sizes:
                report.sizes.setdefault(part, Counter())[sizes[part]] += 1
        except (DataError, OSError) as error:
            report.fault("unreadable", str(error).replace(str(path), shown))
    shapes = {part: size[0] / size[1] for part, size in sizes.items()}
    for part, aspect in shapes.items():
        if abs(aspect / shapes.get("visible", aspect) - 1) > _ASPECT_TOLERANCE:
            report.fault(
                f"{part} of another aspect ratio than the visible image",
                "{}: {}x{}".format(files[part].relative_to(root).as_posix(), *sizes[part]),
            )
    return sum(map(len, report.faults.values())) == before


def _size(picture: npt.NDArray[Any]) -> WidthHeight:
    return int(picture.shape[1]), int(picture.shape[0])


def _check_thermal(
    report: SplitReport, data: DataSet, picture: npt.NDArray[Any], path: Path, shown: str
) -> None:
    bits = {"uint8": "8 bit", "uint16": "16 bit"}.get(picture.dtype.name, "32 bit float")
    channels = "" if picture.ndim == 2 else f", {picture.shape[2]} channels"
    report.depths[bits + channels] += 1
    if data.thermal_in_alpha and picture.shape[2:] != (4,):
        report.fault("no fourth channel", shown)
        return
    _, stretched = thermal_of(picture, path, data.thermal_in_alpha)
    report.stretched += stretched


def _count_labels(report: SplitReport, labels: LabelMap, ids: U8, shown: str) -> None:
    counts = np.bincount(ids.reshape(-1))
    report.labels.update({int(i): int(counts[i]) for i in np.flatnonzero(counts)})
    for unknown in labels.unknown(ids):
        report.fault("unknown label id", f"{unknown} in {shown}")
