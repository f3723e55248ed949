# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Class maps between data sets, as data in one place: each id and name, and the class it maps to.

A target is one of the project's 11 classes, IGNORE, or an id of `SETS`, which stands for one class
of a set without saying which. `to_classes` then maps targets to a preset's classes. A map lists
every id that its data set defines. An unlisted id is an error that names the file, so no label is
lost silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magicfuse_training.arrays import U8
from magicfuse_training.data.errors import DataError

Rgb = tuple[int, int, int]

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence",
    "car", "pedestrian", "bicyclist",
)  # fmt: skip
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
IGNORE = 255
MOST_CLASSES = 240  # higher ids stand for sets of classes, or IGNORE
STATIC = 254  # neither car, pedestrian nor bicyclist; otherwise unknown
NOBODY = 252  # anything but a pedestrian
LOOKALIKE = 253  # like STATIC, but shaped like a person and mistaken for one at night
MOVING = (CAR, PEDESTRIAN, BICYCLIST)

# IDD Lite (arXiv 1811.10200, level 1) has 7 groups that cut across the project's classes. Two match
# a single class; each of the others gets an id.
_IDD_SETS: dict[int, tuple[int, ...]] = {
    240: (PAVEMENT, TREE),  # non-drivable: pavement, and grass or earth
    241: (PEDESTRIAN, BICYCLIST),  # living things: people, riders, animals
    242: (CAR, BICYCLIST),  # vehicles, with two wheels too
    243: (POLE, SIGN, FENCE, PAVEMENT, BUILDING),  # roadside objects: also kerbs and walls
    244: (BUILDING, TREE),  # far objects: also bridges
}
_STATIC_CLASSES = tuple(i for i in range(len(CLASSES)) if i not in MOVING)
SETS: dict[int, tuple[int, ...]] = {
    **_IDD_SETS,
    NOBODY: tuple(i for i in range(len(CLASSES)) if i != PEDESTRIAN),
    LOOKALIKE: _STATIC_CLASSES,
    STATIC: _STATIC_CLASSES,
}

# By their names in the presets, both here and in MFNet.
PEOPLE = ("pedestrian", "person")
RIDERS = ("bicyclist", "bike")


def ids_of_people(names: Sequence[str]) -> tuple[int, ...]:
    """Return the ids of people in labels of a preset's classes, which are ordered by id."""
    return tuple(i for i, name in enumerate(names) if name in PEOPLE)


@dataclass(frozen=True)
class LabelMap:
    """The content of a set's label images: ids, their names, and the class of each.

    `colors`, in the order of the ids, is given if the label images are RGB pictures.
    """

    name: str
    classes: Mapping[int, tuple[str, int]]
    colors: tuple[Rgb, ...] = ()

    def to_project(self, ids: U8, file: Path) -> U8:
        """Map an image of the set's ids (H, W) uint8 to the project's; same shape.

        Raises:
            DataError: names the file and the ids that the set does not define.
        """
        if unknown := self.unknown(ids):
            known = ", ".join(map(str, self.classes))
            raise DataError(
                f"'{file}' holds label id {', '.join(map(str, unknown))}; "
                f"the ids of {self.name} are {known}"
            )
        lookup = np.full(256, IGNORE, np.uint8)
        for source, (_, target) in self.classes.items():
            lookup[source] = target
        return np.asarray(lookup[ids], np.uint8)

    def unknown(self, ids: U8) -> list[int]:
        """Return the undefined ids that occur, in order."""
        counts = np.bincount(ids.reshape(-1), minlength=256)
        return [i for i in np.flatnonzero(counts).tolist() if i not in self.classes]

    def from_colors(self, image: U8, file: Path) -> U8:
        """Return the ids (H, W) of an RGB label picture (H, W, 3).

        Raises:
            DataError: names the file and a colour that the set does not define.
        """
        packed = (image.astype(np.int32) << np.array([16, 8, 0])).sum(2)
        codes = np.array([r << 16 | g << 8 | b for r, g, b in self.colors], np.int32)
        order = codes.argsort()
        place = np.searchsorted(codes[order], packed).clip(max=len(codes) - 1)
        wrong = codes[order][place] != packed
        if wrong.any():
            raise DataError(
                f"'{file}' holds the colour {tuple(image[wrong][0].tolist())}, "
                f"which is none of the {len(codes)} of {self.name}"
            )
        return np.asarray(order[place], np.uint8)


PROJECT = LabelMap(
    "the project's classes",
    {
        **{i: (name, i) for i, name in enumerate(CLASSES)},
        STATIC: ("static", STATIC),
        IGNORE: ("void", IGNORE),
    },
)

# Label images in a user's own folder hold the ids of the preset's own classes, if it has any, else
# the project's ids.
FOLDER = LabelMap("the project's classes, in a folder", PROJECT.classes)


def own_labels(names: Sequence[str]) -> LabelMap:
    """Return the label map of a folder for a preset with its own classes."""
    ids = {i: (name, i) for i, name in enumerate(names)}
    return LabelMap("the preset's classes", {**ids, IGNORE: ("void", IGNORE)})


IDD_LITE = LabelMap(
    "IDD Lite's 7 groups",
    {
        0: ("drivable", ROAD),
        1: ("non drivable", 240),
        2: ("living things", 241),
        3: ("vehicles", 242),
        4: ("roadside objects", 243),
        5: ("far objects", 244),
        6: ("sky", SKY),
        255: ("void", IGNORE),
    },
)

# The labellevel3Ids files that AutoNUE's public-code makes of IDD (arXiv 1811.10200).
IDD = LabelMap(
    "IDD's 26 classes of level 3",
    {
        0: ("road", ROAD),
        1: ("drivable fallback", ROAD),
        2: ("sidewalk", PAVEMENT),
        3: ("non drivable fallback", 240),
        4: ("person", PEDESTRIAN),
        5: ("rider", BICYCLIST),
        6: ("motorcycle", BICYCLIST),
        7: ("bicycle", BICYCLIST),
        8: ("autorickshaw", CAR),
        9: ("car", CAR),
        10: ("truck", CAR),
        11: ("bus", CAR),
        12: ("vehicle fallback", 242),
        13: ("curb", PAVEMENT),
        14: ("wall", BUILDING),
        15: ("fence", FENCE),
        16: ("guard rail", FENCE),
        17: ("billboard", SIGN),
        18: ("traffic sign", SIGN),
        19: ("traffic light", SIGN),
        20: ("pole", POLE),
        21: ("obs-str-bar-fallback", 243),
        22: ("building", BUILDING),
        23: ("bridge", BUILDING),
        24: ("vegetation", TREE),
        25: ("sky", SKY),
        255: ("void", IGNORE),
    },
)

# PennFudanPed masks number the people of a picture and label nothing else. They omit few people. If
# all the rest counted as unknown, a network could call everything a pedestrian.
PENNFUDAN = LabelMap(
    "PennFudanPed's numbered people",
    {0: ("nobody", NOBODY), **{i: ("person", PEDESTRIAN) for i in range(1, 101)}},
)
PENNFUDAN_REPACKED = LabelMap(
    "people as the project's id", {PEDESTRIAN: ("person", PEDESTRIAN), 255: ("nobody", NOBODY)}
)

# The 11 classes of SegNet (10.1109/TPAMI.2016.2644615) are the project's.
CAMVID = LabelMap("CamVid's 11 classes", {k: v for k, v in PROJECT.classes.items() if k != STATIC})
CAMVID_SEGNET = LabelMap(
    "SegNet's CamVid", {**{i: (n, i) for i, n in enumerate(CLASSES)}, 11: ("unlabelled", IGNORE)}
)

# CamVid's own 32 (10.1016/j.patrec.2008.04.005), from its label_colors.txt; grouped as in SegNet.
_CAMVID_32: tuple[tuple[str, Rgb, int], ...] = (
    ("Animal", (64, 128, 64), PEDESTRIAN),
    ("Archway", (192, 0, 128), BUILDING),
    ("Bicyclist", (0, 128, 192), BICYCLIST),
    ("Bridge", (0, 128, 64), BUILDING),
    ("Building", (128, 0, 0), BUILDING),
    ("Car", (64, 0, 128), CAR),
    ("CartLuggagePram", (64, 0, 192), PEDESTRIAN),
    ("Child", (192, 128, 64), PEDESTRIAN),
    ("Column_Pole", (192, 192, 128), POLE),
    ("Fence", (64, 64, 128), FENCE),
    ("LaneMkgsDriv", (128, 0, 192), ROAD),
    ("LaneMkgsNonDriv", (192, 0, 64), ROAD),
    ("Misc_Text", (128, 128, 64), SIGN),
    ("MotorcycleScooter", (192, 0, 192), BICYCLIST),
    ("OtherMoving", (128, 64, 64), CAR),
    ("ParkingBlock", (64, 192, 128), PAVEMENT),
    ("Pedestrian", (64, 64, 0), PEDESTRIAN),
    ("Road", (128, 64, 128), ROAD),
    ("RoadShoulder", (128, 128, 192), PAVEMENT),
    ("Sidewalk", (0, 0, 192), PAVEMENT),
    ("SignSymbol", (192, 128, 128), SIGN),
    ("Sky", (128, 128, 128), SKY),
    ("SUVPickupTruck", (64, 128, 192), CAR),
    ("TrafficCone", (0, 0, 64), POLE),
    ("TrafficLight", (0, 64, 64), SIGN),
    ("Train", (192, 64, 128), CAR),
    ("Tree", (128, 128, 0), TREE),
    ("Truck_Bus", (192, 128, 192), CAR),
    ("Tunnel", (64, 0, 64), BUILDING),
    ("VegetationMisc", (192, 192, 0), TREE),
    ("Void", (0, 0, 0), IGNORE),
    ("Wall", (64, 192, 0), BUILDING),
)
CAMVID_COLORS = LabelMap(
    "CamVid's 32 classes",
    {i: (name, target) for i, (name, _, target) in enumerate(_CAMVID_32)},
    tuple(color for _, color, _ in _CAMVID_32),
)

# MFNet's 9 (10.1109/IROS.2017.8206396), which MSRS shares. Its unlabelled pixels do carry
# information: they are none of its classes. Without these negatives a model calls most of MSRS a
# pedestrian.
MFNET = LabelMap(
    "MFNet's 9 classes",
    {
        0: ("unlabelled", STATIC),
        1: ("car", CAR),
        2: ("person", PEDESTRIAN),
        3: ("bike", BICYCLIST),
        4: ("curve", STATIC),
        5: ("car_stop", STATIC),
        6: ("guardrail", STATIC),
        7: ("color_cone", LOOKALIKE),
        8: ("bump", STATIC),
        255: ("void", IGNORE),
    },
)

MFNET_CLASSES = tuple(name for i, (name, _) in MFNET.classes.items() if i != IGNORE)
# All others are unlabelled, 0. An id that may or may not be an MFNet class tells nothing.
_MFNET_IDS = {
    CAR: 1,
    PEDESTRIAN: 2,
    BICYCLIST: 3,
    IGNORE: IGNORE,
    **{i: IGNORE for i, classes in SETS.items() if set(classes).intersection(MOVING)},
}

# FMB (arXiv 2308.02097): 14 classes, and 2 % of the pixels without one.
FMB = LabelMap(
    "FMB's 15 ids",
    {
        0: ("unlabelled", IGNORE),
        1: ("road", ROAD),
        2: ("sidewalk", PAVEMENT),
        3: ("building", BUILDING),
        4: ("traffic lamp", SIGN),
        5: ("traffic sign", SIGN),
        6: ("vegetation", TREE),
        7: ("sky", SKY),
        8: ("person", PEDESTRIAN),
        9: ("car", CAR),
        10: ("truck", CAR),
        11: ("bus", CAR),
        12: ("motorcycle", BICYCLIST),
        13: ("bicycle", BICYCLIST),
        14: ("pole", POLE),
        255: ("void", IGNORE),
    },
)

# The labelIds files of Cityscapes (10.1109/CVPR.2016.350); a licence plate (-1) is not drawn.
CITYSCAPES = LabelMap(
    "Cityscapes' ids",
    {
        0: ("unlabeled", IGNORE),
        1: ("ego vehicle", IGNORE),
        2: ("rectification border", IGNORE),
        3: ("out of roi", IGNORE),
        4: ("static", STATIC),
        5: ("dynamic", IGNORE),
        6: ("ground", STATIC),
        7: ("road", ROAD),
        8: ("sidewalk", PAVEMENT),
        9: ("parking", STATIC),
        10: ("rail track", STATIC),
        11: ("building", BUILDING),
        12: ("wall", BUILDING),
        13: ("fence", FENCE),
        14: ("guard rail", FENCE),
        15: ("bridge", BUILDING),
        16: ("tunnel", BUILDING),
        17: ("pole", POLE),
        18: ("polegroup", POLE),
        19: ("traffic light", SIGN),
        20: ("traffic sign", SIGN),
        21: ("vegetation", TREE),
        22: ("terrain", STATIC),
        23: ("sky", SKY),
        24: ("person", PEDESTRIAN),
        25: ("rider", BICYCLIST),
        26: ("car", CAR),
        27: ("truck", CAR),
        28: ("bus", CAR),
        29: ("caravan", CAR),
        30: ("trailer", CAR),
        31: ("train", CAR),
        32: ("motorcycle", BICYCLIST),
        33: ("bicycle", BICYCLIST),
        255: ("void", IGNORE),
    },
)


def to_classes(labels: LabelMap, ids: U8, file: Path, names: Sequence[str]) -> U8:
    """Map a set's label image (H, W) uint8 to the ids of a preset's classes; same shape.

    Args:
        labels: the set's map.
        ids: the label image.
        file: source of the label image.
        names: the preset's classes. With MFNet's 9, a road, a sky or a building of another set is
            unlabelled, as in MFNet itself. With a preset's own classes, those of other sets are
            matched by name, and a class without a match is not labelled (IGNORE).

    Raises:
        DataError: see `LabelMap.to_project`; also if no class of the set matches a name.
    """
    own = tuple(names) not in (CLASSES, MFNET_CLASSES)
    if own or (labels is FOLDER and tuple(names) != CLASSES):
        return _to_own(labels, ids, file, names)
    project = labels.to_project(ids, file)
    if tuple(names) == CLASSES:
        return project
    if labels is MFNET:
        return ids
    lookup = np.zeros(256, np.uint8)
    for source, target in _MFNET_IDS.items():
        lookup[source] = target
    return np.asarray(lookup[project], np.uint8)


def _to_own(labels: LabelMap, ids: U8, file: Path, names: Sequence[str]) -> U8:
    """Map to a preset's own classes: a folder already has their ids, other sets match by name."""
    if labels in (FOLDER, own := own_labels(names)):
        return own.to_project(ids, file)
    places = {name: i for i, name in enumerate(names)}
    alike = {**dict.fromkeys(PEOPLE, PEOPLE), **dict.fromkeys(RIDERS, RIDERS)}
    becomes = {
        i: next((places[n] for n in alike.get(name, (name,)) if n in places), IGNORE)
        for i, name in enumerate(CLASSES)
    }
    if set(becomes.values()) == {IGNORE}:
        raise DataError(
            f"'{file}' holds labels of {labels.name}; none of the preset's classes "
            f"({', '.join(names)}) is one of {', '.join(CLASSES)}"
        )
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[list(becomes)] = list(becomes.values())
    for some, members in SETS.items():  # a set is known if all of it maps to one own class
        if len(targets := {becomes[i] for i in members}) == 1:
            lookup[some] = targets.pop()
    return np.asarray(lookup[labels.to_project(ids, file)], np.uint8)


# Names in box files, in lower case. YOLO text uses numbers for names.
BoxMap = Mapping[str, int]
MSRS_BOXES: BoxMap = {"0": PEDESTRIAN, "1": BICYCLIST, "2": CAR}
LLVIP_BOXES: BoxMap = {"person": PEDESTRIAN}
PENNFUDAN_BOXES: BoxMap = {"0": PEDESTRIAN}
M3FD_BOXES: BoxMap = {
    "people": PEDESTRIAN,
    "car": CAR,
    "bus": CAR,
    "motorcycle": BICYCLIST,
    "lamp": POLE,
    "truck": CAR,
}
KAIST_BOXES: BoxMap = {
    "person": PEDESTRIAN,
    "people": PEDESTRIAN,  # a group in which individuals could not be told apart
    "cyclist": BICYCLIST,
    "person?": IGNORE,  # the annotators were not sure
}
