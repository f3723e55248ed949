# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Class maps are complete and report what they do not know."""

from pathlib import Path

import numpy as np
import pytest

from magicfuse_training.data.classes import (
    BICYCLIST,
    CAMVID,
    CAMVID_COLORS,
    CAMVID_SEGNET,
    CAR,
    CITYSCAPES,
    CLASSES,
    FMB,
    FOLDER,
    IDD,
    IDD_LITE,
    IGNORE,
    MFNET,
    MFNET_CLASSES,
    MOVING,
    PEDESTRIAN,
    PENNFUDAN,
    PENNFUDAN_REPACKED,
    PROJECT,
    ROAD,
    SETS,
    STATIC,
    LabelMap,
    to_classes,
)
from magicfuse_training.data.datasets import DATASETS
from magicfuse_training.data.errors import DataError
from magicfuse_training.preset import load_preset

FILE = Path("some/label.png")
LABEL_MAPS = (
    PROJECT, FOLDER, CAMVID, CAMVID_SEGNET, CAMVID_COLORS, MFNET, FMB, CITYSCAPES, IDD, IDD_LITE,
    PENNFUDAN, PENNFUDAN_REPACKED,
)  # fmt: skip


def test_the_classes_are_those_of_the_presets_and_the_moving_ones_come_last() -> None:
    assert [c.name for c in load_preset("nano").classes] == list(CLASSES)
    assert [CLASSES[i] for i in MOVING] == ["car", "pedestrian", "bicyclist"]
    for some in SETS.values():
        assert len(some) > 1 and set(some) < set(range(len(CLASSES)))


@pytest.mark.parametrize("labels", LABEL_MAPS, ids=lambda m: m.name)
def test_every_id_becomes_a_class_a_set_of_them_or_ignored(labels: LabelMap) -> None:
    ids = np.array([list(labels.classes)], np.uint8)
    mapped = labels.to_project(ids, FILE)
    assert mapped.dtype == np.uint8 and mapped.shape == ids.shape
    assert set(mapped.reshape(-1).tolist()) <= {*range(len(CLASSES)), *SETS, IGNORE}
    if labels is not PENNFUDAN:  # its ids number people
        assert len({name for name, _ in labels.classes.values()}) == len(labels.classes)


@pytest.mark.parametrize("labels", LABEL_MAPS, ids=lambda m: m.name)
def test_any_other_id_is_an_error_that_names_file_and_id(labels: LabelMap) -> None:
    for other in set(range(256)) - labels.classes.keys():
        with pytest.raises(DataError, match=rf"'some/label\.png' holds label id {other};"):
            labels.to_project(np.array([[next(iter(labels.classes)), other]], np.uint8), FILE)


@pytest.mark.parametrize(
    ("labels", "count"),
    [(MFNET, 9), (FMB, 15), (CITYSCAPES, 34), (CAMVID_COLORS, 32), (PROJECT, 11)],
)
def test_ids_are_complete_and_count_from_zero(labels: LabelMap, count: int) -> None:
    assert set(range(count)) == labels.classes.keys() - {STATIC, IGNORE}


def test_every_data_set_with_labels_or_boxes_says_what_they_mean() -> None:
    for data in DATASETS.values():
        assert ("label" in data.templates) == (data.labels is not None)
        assert ("boxes" in data.templates) == bool(data.boxes)
        assert data.labels is None or data.labels in LABEL_MAPS
        assert set(data.boxes.values()) <= {*range(len(CLASSES)), IGNORE}


def test_unlabelled_pixels_of_mfnet_are_negatives() -> None:
    label = np.array([[0, 1, 2, 3, 8, 255]], np.uint8)
    expected = [[STATIC, CAR, PEDESTRIAN, BICYCLIST, STATIC, IGNORE]]
    assert MFNET.to_project(label, FILE).tolist() == expected


def test_the_32_colours_of_camvid_differ_and_are_told_apart() -> None:
    assert len(set(CAMVID_COLORS.colors)) == 32
    image = np.array([CAMVID_COLORS.colors], np.uint8)
    assert CAMVID_COLORS.from_colors(image, FILE).tolist() == [list(range(32))]
    lanes = np.array([[(128, 64, 128), (128, 0, 192)]], np.uint8)
    ids = CAMVID_COLORS.from_colors(lanes, FILE)
    assert CAMVID_COLORS.to_project(ids, FILE).tolist() == [[ROAD, ROAD]]
    with pytest.raises(DataError, match=r"'some/label\.png' holds the colour \(1, 2, 3\)"):
        CAMVID_COLORS.from_colors(np.array([[(0, 0, 0), (1, 2, 3)]], np.uint8), FILE)


def test_labels_can_be_those_of_the_paper() -> None:
    paper = [c.name for c in load_preset("paper").classes]
    assert tuple(paper) == MFNET_CLASSES
    own = np.arange(9, dtype=np.uint8)[None]
    assert to_classes(MFNET, own, FILE, paper).tolist() == own.tolist()
    camvid = np.array([[ROAD, CAR, PEDESTRIAN, BICYCLIST, IGNORE]], np.uint8)
    mapped = to_classes(PROJECT, camvid, FILE, paper)
    names = [MFNET_CLASSES[i] for i in mapped[0, :4]]
    assert names == ["unlabelled", "car", "person", "bike"] and mapped[0, 4] == IGNORE


def test_labels_of_other_classes_are_refused_by_name() -> None:
    none = r"label\.png' holds labels of MFNet's .*none of the preset's classes \(dog, cat\) is one"
    with pytest.raises(DataError, match=none):
        to_classes(MFNET, np.zeros((1, 1), np.uint8), FILE, ["dog", "cat"])


def test_classes_of_your_own_may_be_more_and_in_any_order() -> None:
    names = ["person", *[f"thing {i}" for i in range(12)], "road", "sky", "car"]
    own = np.array([[0, 5, 13, 15, IGNORE]], np.uint8)
    assert to_classes(FOLDER, own, FILE, names).tolist() == own.tolist()
    with pytest.raises(DataError, match=r"label\.png' holds label id 16; the ids of the preset's"):
        to_classes(FOLDER, np.array([[16]], np.uint8), FILE, names)
    project = np.array([[ROAD, PEDESTRIAN, BICYCLIST, CAR, STATIC, IGNORE]], np.uint8)
    expected = [[13, 0, IGNORE, 15, IGNORE, IGNORE]]
    assert to_classes(PROJECT, project, FILE, names).tolist() == expected
    group = next(i for i, (_, to) in IDD_LITE.classes.items() if SETS.get(to) == (CAR, BICYCLIST))
    some = np.array([[group]], np.uint8)
    assert to_classes(IDD_LITE, some, FILE, ["road", "car"]).tolist() == [[IGNORE]]
    alike = to_classes(PROJECT, project, FILE, ["pedestrian", "bike"])
    assert alike.tolist() == [[IGNORE, 0, 1, IGNORE, IGNORE, IGNORE]]
