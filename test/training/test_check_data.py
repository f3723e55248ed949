# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train check-data`: distinguishes complete sets from incomplete ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_files import COLOR, GRAY, OTHER, THERMAL, WRITERS, label, load, picture, text, voc

from cli_run import train
from magicfuse_training.data.check import check_split
from magicfuse_training.data.datasets import dataset
from magicfuse_training.preset import load_preset


def check(*arguments: object) -> tuple[int, str]:
    return train("check-data", *arguments)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_complete_set_passes(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path)
    code, output = check(kind, tmp_path)
    assert code == 0, output
    stored = "16x24" if kind == "cityscapes-repacked" else "32x24"
    assert "complete" in output and stored in output


def test_counts_labels_and_depths_are_reported(tmp_path: Path) -> None:
    WRITERS["mfnet"](tmp_path)
    report = check_split(dataset("mfnet"), tmp_path, "train")
    assert report.counts == {"visible": 2, "thermal": 2, "label": 2}
    assert report.depths == {"8 bit, 4 channels": 2}
    assert report.labels == {1: 48, 2: 48, 3: 48, 0: 2 * 24 * 29}
    assert [record.name for record in report.sound] == ["00001D", "00002N"]
    output = check("mfnet", tmp_path, "--split", "train")[1]
    assert "person" in output and "90.62" in output  # percent of the pixels are unlabelled


def test_what_is_missing_is_named_and_fails(tmp_path: Path) -> None:
    WRITERS["msrs"](tmp_path)
    (tmp_path / "train" / "ir" / "00001D.png").unlink()
    picture(tmp_path / "train" / "ir" / "00009D.png", THERMAL)
    code, output = check("msrs", tmp_path)
    assert code == 1
    assert "1 x thermal missing train/ir/00001D.png" in output
    assert "1 x thermal without a visible image train/ir/00009D.png" in output


def test_damaged_and_empty_files_are_named_and_fail(tmp_path: Path) -> None:
    WRITERS["cityscapes"](tmp_path)
    aachen, bochum = sorted((tmp_path / "leftImg8bit").rglob("*.png"))
    aachen.write_bytes(aachen.read_bytes()[:200])  # truncated
    bochum.write_bytes(b"")
    code, output = check("cityscapes", tmp_path)
    assert code == 1
    assert "1 x unreadable 'leftImg8bit/train/aachen/" in output
    assert "1 x empty leftImg8bit/train/bochum/" in output


def test_a_link_to_nothing_is_a_fault_and_the_others_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "vi" / "a.png")
    (tmp_path / "train" / "vi" / "b.png").symlink_to("nowhere.png")
    faults = check_split(dataset("folder"), tmp_path, "train").faults
    assert "No such file" in str(faults["unreadable"])


def test_a_split_may_have_any_name(tmp_path: Path) -> None:
    picture(tmp_path / "drive[1]" / "vi" / "a.png")
    assert len(dataset("folder").records(tmp_path, "drive[1]")) == 1
    assert check_split(dataset("folder"), tmp_path, "drive[1]").counts["visible"] == 1


def test_a_picture_of_two_rows_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "vi" / "a.png", np.zeros((2, 640, 3), np.uint8))
    picture(tmp_path / "train" / "vi" / "b.png", np.zeros((10, 20000, 3), np.uint8))
    sizes = [scene.visible.shape[:2] for scene in load("folder", tmp_path, "train", 480, 640)]
    assert sizes == [(2, 640), (1, 640)]


def test_foreign_labels_boxes_and_shapes_are_named_and_fail(tmp_path: Path) -> None:
    WRITERS["fmb"](tmp_path / "fmb")
    label(tmp_path / "fmb" / "train" / "Label" / "00001.png", [1, 77])
    picture(tmp_path / "fmb" / "train" / "Infrared" / "00001.png", GRAY[:12])
    code, output = check("fmb", tmp_path / "fmb", "--split", "train")
    assert code == 1
    assert "unknown label id 77 in train/Label/00001.png" in output
    assert "train/Infrared/00001.png: 32x12" in output
    WRITERS["m3fd"](tmp_path / "m3fd")
    voc(tmp_path / "m3fd" / "Annotation" / "00000.xml", ("Dog", OTHER))
    code, output = check("m3fd", tmp_path / "m3fd")
    assert code == 1 and "dog in Annotation/00000.xml" in output


def test_an_empty_text_file_says_that_there_is_nobody(tmp_path: Path) -> None:
    WRITERS["msrs-repacked"](tmp_path)
    text(tmp_path / "train" / "boxes_infrared" / "00001D.txt", "")
    assert check("msrs-repacked", tmp_path)[0] == 0


def test_many_faults_are_counted_and_few_are_shown(tmp_path: Path) -> None:
    for i in range(9):
        picture(tmp_path / "vi" / f"{i}.png")
    picture(tmp_path / "ir" / "0.png", THERMAL)
    output = check("folder", tmp_path)[1]
    assert "8 x thermal missing" in output and "ir/3" in output and "and 5 more" in output
    assert "ir/7" not in output


def test_the_sheet_shows_the_scenes_without_faults(tmp_path: Path) -> None:
    WRITERS["msrs-repacked"](tmp_path)
    picture(tmp_path / "train" / "vi" / "00003D.jpg", COLOR)  # without its other files
    sheet = tmp_path / "new" / "sheet.png"
    assert check("msrs-repacked", tmp_path, "--sheet", sheet)[0] == 1
    rows = cv2.imread(str(sheet)).shape[0]
    assert 2 * 240 < rows < 3 * 240


def test_the_sheet_shows_a_folders_labels_in_the_classes_of_the_preset(tmp_path: Path) -> None:
    picture(tmp_path / "vi" / "a.png", COLOR)
    label(tmp_path / "label" / "a.png", [2])
    sheet = tmp_path / "sheet.png"
    assert check("folder", tmp_path, "--preset", "paper", "--sheet", sheet)[0] == 0
    shown = cv2.cvtColor(cv2.imread(str(sheet)), cv2.COLOR_BGR2RGB)
    people = (shown == load_preset("paper").classes[2].color).all(2)
    assert people.mean() > 0.2, "a panel in the colour of 'person'"


def test_a_wrong_kind_split_or_folder_is_one_line(tmp_path: Path) -> None:
    WRITERS["msrs"](tmp_path)
    for arguments, part in (
        (("kitti", tmp_path), "data set is 'kitti'; expected one of"),
        (("msrs", tmp_path, "--split", "dev"), "split is 'dev'"),
        (("msrs", tmp_path / "nowhere"), "does not exist"),
        (("fmb", tmp_path), "no scene of fmb; expected {split}/Visible/{name}.png"),
    ):
        code, output = check(*arguments)
        assert code == 2 and part in output, output
