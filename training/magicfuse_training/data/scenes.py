# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Road scenes of any data set, each at the size that a vehicle's letterbox would give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import cv2
import numpy as np

from magicfuse_training.arrays import U8
from magicfuse_training.data.classes import (
    CLASSES,
    IGNORE,
    LOOKALIKE,
    MOST_CLASSES,
    PEDESTRIAN,
    PEOPLE,
    PROJECT,
    RIDERS,
    SETS,
    BoxMap,
    LabelMap,
    ids_of_people,
    to_classes,
)
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import Boxes, read_image, read_label, read_objects, read_thermal
from magicfuse_training.data.layout import DataSet, Record
from magicfuse_training.data.night import night_reference

SMALLEST = 300  # pixels of the smallest labelled person that gets a box
THERMAL_MEAN, THERMAL_SPREAD = 27.0, 20.0  # of MSRS train's images, of 255: means over its frames
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Scene:
    """One scene; uint8 arrays (H, W, 3) or (H, W), all of one size within the networks' size.

    `clean` is false for real night images: they are degraded, and no clean image of them exists.
    `target` is then a substitute (`night_reference`), otherwise the visible image itself. `label`
    is all IGNORE if the set has no labels. `teacher` is another network's label, or None if it adds
    nothing. A thermal image with more than 8 bits, or from a camera with automatic gain, is
    converted to the usual level and gain of MSRS (`usual_gain`). `people` holds boxes (N, 4) as x0,
    y0, x1, y1 in pixels; if the set has no boxes, they come from the label. `enlargement`
    is the width of the scene divided by that of its file, both in pixels.
    """

    name: str
    visible: U8
    target: U8
    clean: bool
    thermal: U8 | None
    label: U8
    people: Boxes
    teacher: U8 | None = None
    enlargement: float = 1.0

    def people_mask(self) -> U8:
        """Return 1 inside of the boxes of people and 0 elsewhere, (H, W)."""
        mask = np.zeros_like(self.label)
        for x0, y0, x1, y1 in self.people.round().astype(int):
            mask[max(y0, 0) : y1, max(x0, 0) : x1] = 1
        return mask


class Scenes(Sequence[Scene]):
    """The scenes of one split; each is read on demand. `list(scenes)` keeps them in memory."""

    def __init__(
        self,
        data: DataSet,
        root: Path,
        split: str,
        height: int,
        width: int,
        names: Sequence[str] = CLASSES,
    ) -> None:
        """Find the files; `names` are the classes of the labels, see `to_classes`.

        Raises:
            DataError: if there is no scene, or a scene lacks a file.
        """
        self.data = data
        self.records = data.records(root, split)
        self.height, self.width, self.names = height, width, names

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        """Read one scene, or several.

        Raises:
            DataError: for a damaged file, or a label or box that the set does not define.
        """
        if isinstance(index, slice):
            return [self._read(record) for record in self.records[index]]
        return self._read(self.records[index])

    def is_clean(self, index: int) -> bool:
        """Return whether it is a day scene; read its image only if its name does not tell."""
        name, path = self.records[index].name, self.records[index].visible
        if callable(self.data.night):
            return not self.data.night(name)
        return not is_night(self.data, name, read_image(path))

    def _read(self, record: Record) -> Scene:
        return read_scene(self.data, record, self.height, self.width, self.names)


def read_scene(
    data: DataSet, record: Record, height: int, width: int, names: Sequence[str] = CLASSES
) -> Scene:
    """Read one scene of a data set, resized to fit height x width; `names` as in `Scenes`.

    Raises:
        DataError: for a damaged file, or a label or box that the set does not define.
    """
    original = square_pixels(read_image(record.visible), data)
    size = _fitting((original.shape[0], original.shape[1]), (height, width))
    visible = resized(original, size)
    clean = not is_night(data, record.name, original)
    thermal = None
    if record.thermal is not None:
        stored, stretched = read_thermal(record.thermal, data.thermal_in_alpha)
        thermal = resized(square_pixels(stored, data), size)
        thermal = usual_gain(thermal) if data.auto_gain or stretched else thermal
    label = np.full(size, IGNORE, np.uint8)
    if record.label is not None and data.labels is not None:
        label = _read_classes(record.label, data, data.labels, size, names)
    if record.coarse is not None:
        coarse = _read_classes(record.coarse, data, PROJECT, size, names)
        label = filled(label, coarse)
        if not clean:
            label = seen_people(label, coarse, ids_of_people(names))
    teacher = None
    if record.teacher is not None:
        teacher = _read_classes(record.teacher, data, PROJECT, size, names)
        teacher = consistent(teacher, label)
    if record.boxes is not None:
        full = (int(original.shape[0]), int(original.shape[1]))
        people = people_in(record.boxes, data.boxes, *full)
        people = people * np.array([size[1] / full[1], size[0] / full[0]] * 2, np.float32)
    else:
        people = people_labelled(known_classes(label, teacher), names)
    target = visible if clean else night_reference(visible)
    enlargement = size[1] / original.shape[1]
    return Scene(record.name, visible, target, clean, thermal, label, people, teacher, enlargement)


def usual_gain(thermal: U8) -> U8:
    """Scale a thermal image to the mean and spread of MSRS; same shape.

    A camera with automatic gain tells nothing about absolute temperatures: only what is warmer
    within its image.
    """
    values = thermal.astype(np.float32)
    deviation = (values - values.mean()) / max(float(values.std()), 1.0)
    return np.asarray((THERMAL_MEAN + THERMAL_SPREAD * deviation).clip(0, 255).round(), np.uint8)


def seen_people(label: U8, coarse: U8, people: tuple[int, ...]) -> U8:
    """Return a night label in which people whom the coarse one lacks are IGNORE.

    A label made with a thermal sensor holds people whom nobody can see in the visible image. Those
    taught the network to call shadows people.
    """
    unseen = np.isin(label, people) & ~np.isin(coarse, people)
    return np.asarray(np.where(unseen, IGNORE, label), np.uint8)


def filled(label: U8, coarse: U8) -> U8:
    """Fill in a label from a coarse one wherever the label knows no class.

    If a sensor's label says STATIC and the hand-drawn one says person or car, the latter is right.
    """
    unknown = (label >= MOST_CLASSES) & (coarse < MOST_CLASSES) & (label != LOOKALIKE)
    return np.asarray(np.where(unknown, coarse, label), np.uint8)


def consistent(teacher: U8, label: U8) -> U8:
    """Return a teacher's label where it adds to a label without contradiction, else IGNORE."""
    allowed = np.zeros((256, 256), bool)  # by the label's id, then the teacher's
    allowed[IGNORE, :MOST_CLASSES] = True
    for known, classes in SETS.items():
        allowed[known, list(classes)] = True
    return np.asarray(np.where(allowed[label, teacher], teacher, IGNORE), np.uint8)


def known_classes(label: U8, teacher: U8 | None) -> U8:
    """Return the classes of a label, filled in from the teacher where the label has none."""
    return label if teacher is None else np.where(label < MOST_CLASSES, label, teacher)


def _read_classes(
    path: Path, data: DataSet, labels: LabelMap, size: Size, names: Sequence[str]
) -> U8:
    ids = to_classes(labels, read_label(path, labels), path, names)
    return resized(square_pixels(ids, data, label=True), size, label=True)


def is_night(data: DataSet, name: str, image: U8) -> bool:
    """Return whether a scene of a data set is at night, by its name or by the sky in its image."""
    if callable(data.night):
        return data.night(name)
    upper = cv2.cvtColor(image[: max(1, image.shape[0] // 3)], cv2.COLOR_RGB2GRAY)
    return float(upper.mean()) < data.night


def people_in(path: Path, names: BoxMap, height: int, width: int) -> Boxes:
    """Return the boxes of pedestrians in a box file, (N, 4) x0, y0, x1, y1 in pixels.

    Raises:
        DataError: for a damaged file, or a name that the set does not define.
    """
    found, boxes = read_objects(path, height, width)
    for name in found:
        if name not in names:
            raise DataError(f"'{path}' holds the box name '{name}'; expected {', '.join(names)}")
    return boxes[[names[name] == PEDESTRIAN for name in found]].reshape(-1, 4)


def people_labelled(label: U8, names: Sequence[str] = CLASSES) -> Boxes:
    """Return the boxes of people and riders in a label (H, W), (N, 4) x0, y0, x1, y1 in pixels.

    A box is that of connected pixels. Those of under `SMALLEST` pixels are skipped: a close-up
    would show a smear. If no close-up showed riders, every person who is near would be taken for a
    pedestrian.
    """
    ids = [i for i, name in enumerate(names) if name in PEOPLE + RIDERS]
    mask = np.isin(label, ids).astype(np.uint8)
    _, _, found, _ = cv2.connectedComponentsWithStats(mask)
    x, y, w, h, area = found[1:].T  # the first is the background
    boxes: Boxes = np.stack([x, y, x + w, y + h], 1)[area >= SMALLEST].astype(np.float32)
    return boxes


def _fitting(size: Size, limits: Size) -> Size:
    """Return the largest size of the same aspect ratio within limits, like a letterbox."""
    scale = min(limits[0] / size[0], limits[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized(image: U8, size: Size, label: bool = False) -> U8:
    """Resize an image (H, W, 3), or a label (H, W), to (height, width)."""
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    if label:
        how = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST would shift it by half a pixel
    else:
        how = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=how), dtype=np.uint8)


def square_pixels(image: U8, data: DataSet, label: bool = False) -> U8:
    """Undo the squeezed width at which a set is stored."""
    height, width = image.shape[:2]
    return resized(image, (height, width * data.width_factor), label)
