"""Road scenes of any data set at a common size: visible, and thermal, labels, boxes if any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import cv2
import numpy as np

from magicfuse_training.data.classes import (
    CLASSES,
    IGNORE,
    PEDESTRIAN,
    U8,
    BoxMap,
    ids_of_people,
    to_classes,
)
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import (
    Boxes,
    read_boxes,
    read_fourth_channel,
    read_image,
    read_label,
    read_objects,
)
from magicfuse_training.data.layout import DataSet, Record
from magicfuse_training.data.night import night_reference

__all__ = ["PERSON", "Scene", "Scenes", "load", "load_camvid", "load_msrs", "read_boxes",
           "read_image", "read_scene"]  # fmt: skip

PERSON = 0  # in the box files of MSRS
SMALLEST = 300  # pixels of a labelled person who gets a box
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Scene:
    """One scene at a common size; arrays (H, W, 3) or (H, W), uint8.

    `clean` is false for real night images: they are degraded, and no clean image of them exists;
    `target` is then a stand-in (`night_reference`), else the visible image itself. `label` is all
    IGNORE where the set has no labels. `people` holds boxes (N, 4) as x0, y0, x1, y1 in pixels;
    where the set has no boxes they are those of the label.
    """

    name: str
    visible: U8
    target: U8
    clean: bool
    thermal: U8 | None
    label: U8
    people: Boxes


class Scenes(Sequence[Scene]):
    """The scenes of one split, read when they are asked for; `list(scenes)` keeps them in memory.

    Images of another aspect ratio lose their margins: a person who is stretched is none.
    """

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
            DataError: if there is no scene, or a file of one is missing.
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
            DataError: for a file that is damaged, or a label or box that the set does not define.
        """
        if isinstance(index, slice):
            return [self._read(record) for record in self.records[index]]
        return self._read(self.records[index])

    def is_clean(self, index: int) -> bool:
        """Return whether a scene is one by day; reads its image only if its name does not tell."""
        name, path = self.records[index].name, self.records[index].visible
        if callable(self.data.night):
            return not self.data.night(name)
        return not _is_night(self.data, name, read_image(path))

    def _read(self, record: Record) -> Scene:
        return read_scene(self.data, record, self.height, self.width, self.names)


def read_scene(
    data: DataSet, record: Record, height: int, width: int, names: Sequence[str] = CLASSES
) -> Scene:
    """Read one scene of a data set at height x width; `names` as for `Scenes`.

    Raises:
        DataError: for a file that is damaged, or a label or box that the set does not define.
    """
    original = read_image(record.visible)
    visible = _fit(original, height, width)
    clean = not _is_night(data, record.name, original)
    thermal = None
    if record.thermal is not None:
        read = read_fourth_channel if data.thermal_in_alpha else _read_gray
        thermal = _fit(read(record.thermal), height, width)
    label = np.full((height, width), IGNORE, np.uint8)
    if record.label is not None and data.labels is not None:
        ids = read_label(record.label, data.labels)
        ids = to_classes(data.labels, ids, record.label, names)
        label = _fit(ids, height, width, label=True)
    if record.boxes is not None:
        size = (int(original.shape[0]), int(original.shape[1]))
        people = people_in(record.boxes, data.boxes, *size)
        people = _fit_boxes(people, size, (height, width))
    else:
        people = people_labelled(label, names)
    target = visible if clean else night_reference(visible)
    return Scene(record.name, visible, target, clean, thermal, label, people)


def _is_night(data: DataSet, name: str, image: U8) -> bool:
    if callable(data.night):
        return data.night(name)
    upper = cv2.cvtColor(image[: max(1, image.shape[0] // 3)], cv2.COLOR_RGB2GRAY)
    return float(upper.mean()) < data.night


def _read_gray(path: Path) -> U8:
    return read_image(path, gray=True)


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
    """Return the boxes of connected pedestrians in a label (H, W), (N, 4) x0, y0, x1, y1 in pixels.

    Those under `SMALLEST` pixels are left out: from near they would be a smear.
    """
    mask = np.isin(label, ids_of_people(names)).astype(np.uint8)
    _, _, found, _ = cv2.connectedComponentsWithStats(mask)
    x, y, w, h, area = found[1:].T  # the first is the background
    boxes: Boxes = np.stack([x, y, x + w, y + h], 1)[area >= SMALLEST].astype(np.float32)
    return boxes


def _middle(size: Size, wanted: Size) -> tuple[int, int, int, int]:
    """Return x, y, width, height of the largest middle part with the aspect ratio wanted."""
    (height, width), aspect = size, wanted[1] / wanted[0]
    w = min(width, round(height * aspect))
    h = min(height, round(width / aspect))
    return (width - w) // 2, (height - h) // 2, w, h


def _fit(image: U8, height: int, width: int, label: bool = False) -> U8:
    x, y, w, h = _middle((image.shape[0], image.shape[1]), (height, width))
    image = image[y : y + h, x : x + w]
    if (h, w) == (height, width):
        return np.ascontiguousarray(image)
    how = cv2.INTER_NEAREST if label else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def _fit_boxes(boxes: Boxes, size: Size, wanted: Size) -> Boxes:
    x, y, w, h = _middle(size, wanted)
    if size == wanted:
        return boxes
    scale = np.array([wanted[1] / w, wanted[0] / h] * 2, np.float32)
    limit = np.array([wanted[1], wanted[0]] * 2, np.float32)
    moved = ((boxes - np.array([x, y] * 2, np.float32)) * scale).clip(0, limit)
    return moved[(moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])]


def load(
    kind: str, root: Path, split: str, height: int, width: int, in_memory: bool = False
) -> Sequence[Scene]:
    """Load a split of a data set (`datasets.DATASETS`) at height x width.

    Args:
        kind: the data set.
        root: its folder.
        split: one of its splits; "all" where it has none.
        height: of every scene, in pixels.
        width: of every scene, in pixels.
        in_memory: read all of it now; otherwise each scene is read whenever it is asked for.

    Raises:
        DataError: for an unknown kind or split, and for a missing, damaged or foreign file.
    """
    scenes = Scenes(dataset(kind), root, split, height, width)
    return list(scenes) if in_memory else scenes


def load_camvid(root: Path, split: str, height: int, width: int) -> list[Scene]:
    """Load repacked CamVid (`root/split/{vi,label}`) into memory, resized to height x width."""
    return list(load("camvid-repacked", root, split, height, width))


def load_msrs(root: Path, split: str, height: int, width: int) -> list[Scene]:
    """Load repacked MSRS (`root/split/{vi,ir,pseudo_label,boxes_infrared}`) into memory."""
    return list(load("msrs-repacked", root, split, height, width))
