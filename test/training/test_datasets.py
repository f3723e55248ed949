# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Data sets, from the published folders to scenes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_files import (
    COLOR,
    HEIGHT,
    PERSON_BOX,
    THERMAL,
    WIDTH,
    WRITERS,
    label,
    load,
    picture,
    text,
    voc,
)

from magicfuse_training.data.classes import (
    BICYCLIST,
    CAR,
    CLASSES,
    IGNORE,
    LOOKALIKE,
    NOBODY,
    PEDESTRIAN,
    SKY,
    STATIC,
)
from magicfuse_training.data.datasets import DATASETS, dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.scenes import usual_gain

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = {  # of the first split
    "folder": ["a"],
    "mfnet": ["00001D", "00002N"],
    "msrs": ["00001D", "00002N"],
    "msrs-repacked": ["00001D", "00002N"],
    "fmb": ["00001"],
    "llvip": ["010001"],
    "m3fd": ["00000"],
    "roadscene": ["FLIR_00006"],
    "roadscene-repacked": ["FLIR_00006"],
    "camvid": ["0001TP_006690"],
    "camvid-segnet": ["0001TP_006690"],
    "camvid-repacked": ["0001TP_006690"],
    "cityscapes": ["aachen/aachen_000000_000019", "bochum/bochum_000000_000019"],
    "kaist": ["set00/V000/I00000", "set03/V001/I00000"],
    "llvip-repacked": ["010001"],
    "cityscapes-repacked": ["aachen_0001"],
    "idd": ["201/frame0029"],
    "idd-lite": ["0/024541"],
    "idd-repacked": ["000_024541"],
    "pennfudan": ["FudanPed00001"],
    "pennfudan-repacked": ["FudanPed00001"],
}
UNLABELLED = {"llvip", "llvip-repacked", "m3fd", "roadscene", "roadscene-repacked", "kaist"}
BOXED = {"msrs-repacked", "llvip", "m3fd", "kaist", "pennfudan-repacked"}
VISIBLE_ONLY = {
    "camvid", "camvid-segnet", "camvid-repacked", "cityscapes", "cityscapes-repacked",
    "idd", "idd-lite", "idd-repacked", "pennfudan", "pennfudan-repacked",
}  # fmt: skip
VEHICLES, LIVING = 242, 241  # the sets of classes of IDD Lite's groups
FIRST = {  # first row of the label, unless it is a car, a person, a rider and something else
    **{kind: [IGNORE] * 4 for kind in UNLABELLED},
    **{kind: [CAR, PEDESTRIAN, BICYCLIST, STATIC] for kind in ("mfnet", "msrs", "msrs-repacked")},
    "cityscapes-repacked": [CAR, CAR, PEDESTRIAN, PEDESTRIAN],
    "idd-lite": [VEHICLES, LIVING, LIVING, SKY],
    "idd-repacked": [VEHICLES, LIVING, LIVING, SKY],
    "pennfudan": [NOBODY, PEDESTRIAN, PEDESTRIAN, NOBODY],
    "pennfudan-repacked": [NOBODY, PEDESTRIAN, PEDESTRIAN, NOBODY],
}


def first_split(kind: str, root: Path) -> str:
    return dataset(kind).splits_in(root)[0]


def test_every_data_set_is_tested() -> None:
    assert set(DATASETS) == set(WRITERS) == set(NAMES)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_set_in_its_published_layout_becomes_scenes(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path)
    scenes = load(kind, tmp_path, first_split(kind, tmp_path))
    assert [scene.name for scene in scenes] == NAMES[kind]
    scene = scenes[0]
    assert np.abs(scene.visible.astype(int) - COLOR).mean() < 5  # some are JPEG
    if kind in VISIBLE_ONLY:
        assert scene.thermal is None
    else:
        assert scene.thermal is not None
        real = usual_gain(THERMAL) if dataset(kind).auto_gain else THERMAL
        assert np.abs(scene.thermal.astype(int) - real).mean() < 8
    assert scene.label[0, :4].tolist() == FIRST.get(kind, [CAR, PEDESTRIAN, BICYCLIST, SKY])
    assert scene.people.tolist() == ([list(PERSON_BOX)] if kind in BOXED else [])


@pytest.mark.parametrize("kind", ["mfnet", "msrs", "msrs-repacked", "kaist"])
def test_a_night_is_told_by_its_name(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path)
    day, night = load(kind, tmp_path, "train")
    assert day.clean and day.target is day.visible
    assert not night.clean and (night.target != night.visible).any()


def test_a_night_without_a_telling_name_is_told_by_its_dark_sky(tmp_path: Path) -> None:
    picture(tmp_path / "vi" / "day.png", np.full((24, 32, 3), 120, np.uint8))
    night = np.full((24, 32, 3), 20, np.uint8)
    night[12:] = 200  # headlights on the road
    picture(tmp_path / "vi" / "night.png", night)
    assert [s.clean for s in load("folder", tmp_path, ".", 24, 32)] == [True, False]


def test_llvip_is_always_night_and_splits_share_one_folder_of_boxes(tmp_path: Path) -> None:
    WRITERS["llvip"](tmp_path)
    (scene,) = load("llvip", tmp_path, "test")
    assert scene.name == "190001" and not scene.clean


def test_splits_of_kaist_are_its_sets(tmp_path: Path) -> None:
    WRITERS["kaist"](tmp_path)
    (scene,) = load("kaist", tmp_path, "test")
    assert scene.name == "set06/V000/I00000" and scene.clean


def test_a_folder_may_have_splits_and_lack_thermal_and_labels(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "vi" / "a.PNG")
    picture(tmp_path / "val" / "vi" / "b.jpeg")
    (tmp_path / "notes").mkdir()
    assert dataset("folder").splits_in(tmp_path) == ["train", "val"]
    (scene,) = load("folder", tmp_path, "train")
    assert scene.thermal is None and (scene.label == IGNORE).all()


def test_scenes_are_read_when_asked_for_unless_they_are_held_in_memory(tmp_path: Path) -> None:
    WRITERS["folder"](tmp_path)
    lazy = load("folder", tmp_path, ".")
    held = list(lazy)
    picture(tmp_path / "vi" / "a.jpg", 255 - COLOR)
    assert len(lazy) == 1 and len(lazy[:1]) == 1
    assert (lazy[0].visible != held[0].visible).any() and held[0] is held[0]


def test_a_scene_is_fitted_into_the_size_as_a_letterbox_fits_it(tmp_path: Path) -> None:
    wide = np.zeros((48, 128, 3), np.uint8)
    wide[:, 32:96] = 200
    picture(tmp_path / "Vis" / "0.png", wide)
    picture(tmp_path / "Ir" / "0.png", wide[..., 0])
    box = "<bndbox><xmin>40</xmin><ymin>12</ymin><xmax>60</xmax><ymax>32</ymax></bndbox>"
    voc(tmp_path / "Annotation" / "0.xml", ("People", box))
    (scene,) = load("m3fd", tmp_path, "all", 24, 32)
    assert scene.visible.shape == (12, 32, 3) and scene.label.shape == (12, 32)
    assert scene.thermal is not None and scene.thermal.shape == (12, 32)
    assert scene.visible[:, 10:22].min() > 150 and scene.visible[:, :6].max() < 50
    assert scene.people.tolist() == [[10, 3, 15, 8]] and scene.enlargement == 0.25


def test_what_automatic_gain_made_of_a_thermal_image_is_undone() -> None:
    """A camera's level and gain carry no information; only relative warmth does."""
    scene = np.random.default_rng(0).integers(20, 60, (24, 32), np.uint8)
    stretched = (3 * scene.astype(int) + 40).astype(np.uint8)
    assert np.abs(usual_gain(scene).astype(int) - usual_gain(stretched)).max() <= 1
    assert usual_gain(np.full_like(scene, 90)).std() == 0


def test_coarse_masks_fill_what_a_label_leaves_open_and_teachers_never_contradict(
    tmp_path: Path,
) -> None:
    WRITERS["msrs-repacked"](tmp_path)  # car, person, bike, then unlabelled: STATIC
    night = tmp_path / "train" / "coarse_label" / "00002N.png"
    label(night, [SKY, SKY, SKY, 3, PEDESTRIAN, IGNORE])
    label(tmp_path / "train" / "teacher_label" / "00001D.png", [5, 5, 5, CAR, 4, IGNORE])
    day, dark = load("msrs-repacked", tmp_path, "train")
    known = [CAR, PEDESTRIAN, BICYCLIST]
    # Whom only the sensor's label knows, nobody may have seen in the dark.
    by_night = [CAR, IGNORE, BICYCLIST, 3, PEDESTRIAN, STATIC]
    assert dark.label[0, :6].tolist() == by_night and dark.teacher is None
    assert day.label[0, :5].tolist() == [*known, STATIC, STATIC]
    assert day.teacher is not None  # exact classes need no teacher; a car is not STATIC
    assert day.teacher[0, :6].tolist() == [IGNORE] * 4 + [4, IGNORE]


def test_a_teacher_adds_classes_inside_the_groups_of_idd(tmp_path: Path) -> None:
    WRITERS["idd-repacked"](tmp_path)
    (scene,) = load("idd-repacked", tmp_path, "train")
    assert scene.teacher is not None  # road among living things is a contradiction
    assert scene.teacher[0, :4].tolist() == [CAR, PEDESTRIAN, IGNORE, IGNORE]


def test_a_palette_png_holds_ids_and_not_its_colours(tmp_path: Path) -> None:
    from PIL import Image

    WRITERS["camvid-repacked"](tmp_path)
    image = Image.fromarray(np.full((HEIGHT, WIDTH), 3, np.uint8), mode="P")
    image.putpalette([200, 100, 50] * 256)
    image.save(tmp_path / "train" / "label" / "0001TP_006690.png")
    (scene,) = load("camvid-repacked", tmp_path, "train")
    assert (scene.label == 3).all()


def test_missing_files_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    WRITERS["msrs"](tmp_path)
    for name in ("00001D", "00002N"):
        (tmp_path / "train" / "ir" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"2 thermal files .* train/ir/00001D\.png"):
        load("msrs", tmp_path, "train")
    text(tmp_path / "train.txt", "lost\n")
    with pytest.raises(DataError, match=r"1 visible files .*images/lost\.png"):
        load("mfnet", tmp_path, "train")


def test_frames_of_kaist_without_boxes_show_nobody_that_is_known(tmp_path: Path) -> None:
    """The new annotations cover only some of its training frames, and no test frames."""
    WRITERS["kaist"](tmp_path)
    boxes = tmp_path / "annotations-xml-new-sanitized"
    (boxes / "set00" / "V000" / "I00000.xml").unlink()
    scenes = load("kaist", tmp_path, "train")
    assert len(scenes[0].people) == 0
    for path in boxes.rglob("*.xml"):
        path.unlink()
    assert all(len(s.people) == 0 for s in load("kaist", tmp_path, "train"))


def test_labels_that_training_rests_on_are_not_optional(tmp_path: Path) -> None:
    WRITERS["camvid-repacked"](tmp_path)
    (tmp_path / "train" / "label" / "0001TP_006690.png").unlink()
    with pytest.raises(DataError, match="label"):
        list(load("camvid-repacked", tmp_path, "train"))


def test_wrong_kinds_splits_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'kitti'; expected one of folder, mfnet"):
        dataset("kitti")
    with pytest.raises(DataError, match="camvid' does not exist"):
        list(load("camvid-repacked", tmp_path / "camvid", "train", 64, 96))
    WRITERS["camvid-repacked"](tmp_path)
    with pytest.raises(DataError, match=r"split is 'test'; .* has train"):
        list(load("camvid-repacked", tmp_path, "test", 64, 96))
    with pytest.raises(DataError, match=r"no scene of split 'train' of fmb; .*train/Visible"):
        load("fmb", tmp_path, "train", 64, 96)
    with pytest.raises(DataError, match=r"test\.txt"):
        load("mfnet", tmp_path, "test", 64, 96)


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    WRITERS["folder"](tmp_path)
    picture(tmp_path / "vi" / "a.png")
    with pytest.raises(DataError, match="same scene"):
        load("folder", tmp_path, ".")


@pytest.mark.parametrize(
    ("content", "message"),
    [("<annotation><object>", "damaged"), ("<a><object><name>x</name></object></a>", "bndbox"),
     ("<a><object><name>cat</name><bndbox><x>1</x><y>1</y><w>1</w><h>1</h></bndbox></object></a>",
      "box name 'cat'")],
)  # fmt: skip
def test_a_damaged_box_file_is_named(content: str, message: str, tmp_path: Path) -> None:
    WRITERS["llvip"](tmp_path)
    text(tmp_path / "Annotations" / "010001.xml", content)
    with pytest.raises(DataError, match=rf"010001\.xml.*{message}"):
        load("llvip", tmp_path, "train")[0]


def test_a_damaged_yolo_file_is_named(tmp_path: Path) -> None:
    WRITERS["msrs-repacked"](tmp_path)
    for content in ("0 0.5 0.5\n", "person 0.5 0.5 0.1 0.1\n"):
        text(tmp_path / "train" / "boxes_infrared" / "00001D.txt", content)
        with pytest.raises(DataError, match=r"00001D\.txt' is damaged"):
            list(load("msrs-repacked", tmp_path, "train"))


def test_foreign_images_are_named(tmp_path: Path) -> None:
    WRITERS["mfnet"](tmp_path)
    picture(tmp_path / "images" / "00001D.png", COLOR)
    with pytest.raises(DataError, match=r"00001D\.png' is uint8 \(24, 32, 3\); expected"):
        load("mfnet", tmp_path, "train")[0]
    text(tmp_path / "images" / "00001D.png", "no picture")
    with pytest.raises(DataError, match=r"00001D\.png'.* damaged or no image"):
        load("mfnet", tmp_path, "train")[0]


def test_a_label_of_another_set_is_named_with_its_id(tmp_path: Path) -> None:
    WRITERS["camvid-repacked"](tmp_path)
    path = label(tmp_path / "train" / "label" / "0001TP_006690.png", [3, 33])
    with pytest.raises(DataError, match=rf"{path.name}' holds label id 33; .* 0, 1, 2"):
        list(load("camvid-repacked", tmp_path, "train"))
    picture(path)
    with pytest.raises(DataError, match=rf"{path.name}' is a colour picture"):
        list(load("camvid-repacked", tmp_path, "train"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_the_repacked_sets_load() -> None:
    msrs = load("msrs-repacked", SHARED / "msrs", "dev", 480, 640)
    assert len(msrs) == 32
    scene = msrs[-1]
    assert scene.name.endswith("N") and not scene.clean and len(scene.people)
    assert set(np.unique(scene.label)) <= {*range(len(CLASSES)), STATIC, LOOKALIKE, IGNORE}
    camvid = load("camvid-repacked", SHARED / "camvid", "val", 480, 640)
    assert len(camvid) == 101 and camvid[0].clean
    path = SHARED / "camvid" / "val" / "label" / f"{camvid[0].name}.png"
    ids = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    ids = cv2.resize(ids, (640, 480), interpolation=cv2.INTER_NEAREST_EXACT)
    assert np.array_equal(camvid[0].label, ids)
    assert len(load("roadscene-repacked", SHARED / "roadscene", "dev", 480, 640)) == 30
    cityscapes = load("cityscapes-repacked", SHARED / "cityscapes", "dev", 480, 640)
    assert len(cityscapes) == 264 and cityscapes[0].label.shape == (320, 640)
    assert len(load("idd-repacked", SHARED / "idd", "dev", 480, 640)) == 135
