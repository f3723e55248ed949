"""Data sets: from the published folders to scenes."""

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
    picture,
    text,
    voc,
)

from magicfuse_training.data.classes import (
    BICYCLIST,
    CAR,
    IGNORE,
    LOOKALIKE,
    PEDESTRIAN,
    SKY,
    STATIC,
)
from magicfuse_training.data.datasets import DATASETS, dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.scenes import Scenes, load, load_camvid, load_msrs

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
}
UNLABELLED = {"llvip", "m3fd", "roadscene", "roadscene-repacked", "kaist"}
BOXED = {"msrs-repacked", "llvip", "m3fd", "kaist"}
VISIBLE_ONLY = {"camvid", "camvid-segnet", "camvid-repacked", "cityscapes"}


def first_split(kind: str, root: Path) -> str:
    return dataset(kind).splits_in(root)[0]


def test_every_data_set_is_tested() -> None:
    assert set(DATASETS) == set(WRITERS) == set(NAMES)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_set_in_its_published_layout_becomes_scenes(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path)
    scenes = load(kind, tmp_path, first_split(kind, tmp_path), HEIGHT, WIDTH)
    assert [scene.name for scene in scenes] == NAMES[kind]
    scene = scenes[0]
    assert np.abs(scene.visible.astype(int) - COLOR).mean() < 5  # some are JPEG
    if kind in VISIBLE_ONLY:
        assert scene.thermal is None
    else:
        assert scene.thermal is not None
        assert np.abs(scene.thermal.astype(int) - THERMAL).mean() < 8
    rest = {"mfnet": STATIC, "msrs": STATIC, "msrs-repacked": STATIC}.get(kind, SKY)
    expected = [IGNORE] * 4 if kind in UNLABELLED else [CAR, PEDESTRIAN, BICYCLIST, rest]
    assert scene.label[0, :4].tolist() == expected
    assert scene.people.tolist() == ([list(PERSON_BOX)] if kind in BOXED else [])


@pytest.mark.parametrize("kind", ["mfnet", "msrs", "msrs-repacked", "kaist"])
def test_a_night_is_told_by_its_name(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path)
    day, night = load(kind, tmp_path, "train", HEIGHT, WIDTH)
    assert day.clean and day.target is day.visible
    assert not night.clean and (night.target != night.visible).any()


def test_a_night_without_a_telling_name_is_told_by_its_dark_sky(tmp_path: Path) -> None:
    picture(tmp_path / "vi" / "day.png", np.full((24, 32, 3), 120, np.uint8))
    night = np.full((24, 32, 3), 20, np.uint8)
    night[12:] = 200  # head lamps on the road
    picture(tmp_path / "vi" / "night.png", night)
    assert [s.clean for s in load("folder", tmp_path, ".", 24, 32)] == [True, False]


def test_llvip_is_always_night_and_splits_share_one_folder_of_boxes(tmp_path: Path) -> None:
    WRITERS["llvip"](tmp_path)
    (scene,) = load("llvip", tmp_path, "test", HEIGHT, WIDTH)
    assert scene.name == "190001" and not scene.clean


def test_splits_of_kaist_are_its_sets(tmp_path: Path) -> None:
    WRITERS["kaist"](tmp_path)
    (scene,) = load("kaist", tmp_path, "test", HEIGHT, WIDTH)
    assert scene.name == "set06/V000/I00000" and scene.clean


def test_a_folder_may_have_splits_and_lack_thermal_and_labels(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "vi" / "a.PNG")
    picture(tmp_path / "val" / "vi" / "b.jpeg")
    (tmp_path / "notes").mkdir()
    assert dataset("folder").splits_in(tmp_path) == ["train", "val"]
    (scene,) = load("folder", tmp_path, "train", HEIGHT, WIDTH)
    assert scene.thermal is None and (scene.label == IGNORE).all()


def test_scenes_are_read_when_asked_for_unless_they_are_held_in_memory(tmp_path: Path) -> None:
    WRITERS["folder"](tmp_path)
    lazy = load("folder", tmp_path, ".", HEIGHT, WIDTH)
    held = load("folder", tmp_path, ".", HEIGHT, WIDTH, in_memory=True)
    picture(tmp_path / "vi" / "a.jpg", 255 - COLOR)
    assert isinstance(lazy, Scenes) and len(lazy) == 1 and len(lazy[:1]) == 1
    assert (lazy[0].visible != held[0].visible).any() and held[0] is held[0]


def test_other_aspect_ratios_lose_their_margins_and_boxes_move_along(tmp_path: Path) -> None:
    wide = np.zeros((48, 128, 3), np.uint8)
    wide[:, 32:96] = 200  # the middle 64 x 48 pixels
    picture(tmp_path / "Vis" / "0.png", wide)
    picture(tmp_path / "Ir" / "0.png", wide[..., 0])
    inside = "<bndbox><xmin>40</xmin><ymin>10</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>"
    outside = "<bndbox><xmin>2</xmin><ymin>10</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
    voc(tmp_path / "Annotation" / "0.xml", ("People", inside), ("People", outside))
    (scene,) = load("m3fd", tmp_path, "all", 24, 32)
    assert scene.visible.min() > 150 and scene.thermal is not None and scene.thermal.min() > 150
    assert scene.people.tolist() == [[4, 5, 14, 15]]


def test_a_palette_png_holds_ids_and_not_its_colours(tmp_path: Path) -> None:
    from PIL import Image

    WRITERS["camvid-repacked"](tmp_path)
    image = Image.fromarray(np.full((HEIGHT, WIDTH), 3, np.uint8), mode="P")
    image.putpalette([200, 100, 50] * 256)
    image.save(tmp_path / "train" / "label" / "0001TP_006690.png")
    (scene,) = load_camvid(tmp_path, "train", HEIGHT, WIDTH)
    assert (scene.label == 3).all()


def test_missing_files_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    WRITERS["msrs"](tmp_path)
    for name in ("00001D", "00002N"):
        (tmp_path / "train" / "ir" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"2 thermal files .* train/ir/00001D\.png"):
        load("msrs", tmp_path, "train", HEIGHT, WIDTH)
    text(tmp_path / "train.txt", "lost\n")
    with pytest.raises(DataError, match=r"1 visible files .*images/lost\.png"):
        load("mfnet", tmp_path, "train", HEIGHT, WIDTH)


def test_boxes_may_be_left_out_as_a_whole_but_not_one_by_one(tmp_path: Path) -> None:
    WRITERS["kaist"](tmp_path)
    boxes = tmp_path / "annotations-xml-new-sanitized"
    (boxes / "set00" / "V000" / "I00000.xml").unlink()
    with pytest.raises(DataError, match=r"1 boxes files .*set00/V000/I00000\.xml"):
        load("kaist", tmp_path, "train", HEIGHT, WIDTH)
    for path in boxes.rglob("*.xml"):
        path.unlink()
    assert len(load("kaist", tmp_path, "train", HEIGHT, WIDTH)[0].people) == 0


def test_labels_that_training_rests_on_are_not_optional(tmp_path: Path) -> None:
    WRITERS["camvid-repacked"](tmp_path)
    (tmp_path / "train" / "label" / "0001TP_006690.png").unlink()
    with pytest.raises(DataError, match="label"):
        load_camvid(tmp_path, "train", HEIGHT, WIDTH)


def test_wrong_kinds_splits_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'kitti'; expected one of folder, mfnet"):
        dataset("kitti")
    with pytest.raises(DataError, match="camvid' does not exist"):
        load_camvid(tmp_path / "camvid", "train", 64, 96)
    WRITERS["camvid-repacked"](tmp_path)
    with pytest.raises(DataError, match=r"split is 'test'; .* has train"):
        load_camvid(tmp_path, "test", 64, 96)
    with pytest.raises(DataError, match=r"no scene of split 'train' of fmb; .*train/Visible"):
        load("fmb", tmp_path, "train", 64, 96)
    with pytest.raises(DataError, match=r"test\.txt"):
        load("mfnet", tmp_path, "test", 64, 96)


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    WRITERS["folder"](tmp_path)
    picture(tmp_path / "vi" / "a.png")
    with pytest.raises(DataError, match="same scene"):
        load("folder", tmp_path, ".", HEIGHT, WIDTH)


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
        load("llvip", tmp_path, "train", HEIGHT, WIDTH)[0]


def test_a_damaged_yolo_file_is_named(tmp_path: Path) -> None:
    WRITERS["msrs-repacked"](tmp_path)
    for content in ("0 0.5 0.5\n", "person 0.5 0.5 0.1 0.1\n"):
        text(tmp_path / "train" / "boxes_infrared" / "00001D.txt", content)
        with pytest.raises(DataError, match=r"00001D\.txt' is damaged"):
            load_msrs(tmp_path, "train", HEIGHT, WIDTH)


def test_foreign_images_are_named(tmp_path: Path) -> None:
    WRITERS["mfnet"](tmp_path)
    picture(tmp_path / "images" / "00001D.png", COLOR)
    with pytest.raises(DataError, match=r"00001D\.png' is uint8 \(24, 32, 3\); expected"):
        load("mfnet", tmp_path, "train", HEIGHT, WIDTH)[0]
    text(tmp_path / "images" / "00001D.png", "no picture")
    with pytest.raises(DataError, match=r"00001D\.png' is missing or is no image"):
        load("mfnet", tmp_path, "train", HEIGHT, WIDTH)[0]


def test_a_label_of_another_set_is_named_with_its_id(tmp_path: Path) -> None:
    WRITERS["camvid-repacked"](tmp_path)
    path = label(tmp_path / "train" / "label" / "0001TP_006690.png", [3, 33])
    with pytest.raises(DataError, match=rf"{path.name}' holds label id 33; .* 0, 1, 2"):
        load_camvid(tmp_path, "train", HEIGHT, WIDTH)
    picture(path)
    with pytest.raises(DataError, match=rf"{path.name}' is a colour picture"):
        load_camvid(tmp_path, "train", HEIGHT, WIDTH)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_the_repacked_sets_load_as_they_always_did() -> None:
    msrs = load("msrs-repacked", SHARED / "msrs", "dev", 480, 640)
    assert len(msrs) == 32
    scene = msrs[-1]
    assert scene.name.endswith("N") and not scene.clean and len(scene.people)
    assert set(np.unique(scene.label)) <= {CAR, PEDESTRIAN, BICYCLIST, STATIC, LOOKALIKE, IGNORE}
    camvid = load("camvid-repacked", SHARED / "camvid", "val", 480, 640)
    assert len(camvid) == 101 and camvid[0].clean
    path = SHARED / "camvid" / "val" / "label" / f"{camvid[0].name}.png"
    ids = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    ids = cv2.resize(ids, (640, 480), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(camvid[0].label, ids)
    assert len(load("roadscene-repacked", SHARED / "roadscene", "dev", 480, 640)) == 30
