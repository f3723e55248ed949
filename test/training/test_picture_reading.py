# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Training, check-data and `magicfuse run` see the same pixels of a picture, or the same fault."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_files import COLOR, GRAY, HEIGHT, THERMAL, WIDTH, label, load, picture
from PIL import Image

from cli_run import train
from magicfuse_ros.image_codec import decode_file
from magicfuse_training.data.check import check_split
from magicfuse_training.data.classes import PROJECT
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import read_image, read_label, read_thermal
from magicfuse_training.data.scenes import Scene


def check(root: Path, kind: str = "folder") -> tuple[int, str]:
    return train("check-data", kind, root)


def scene(root: Path) -> Scene:
    return load("folder", root, ".")[0]


def turned(path: Path, pixels: np.ndarray) -> Path:
    """Write pixels like a camera that was held upright and turned by 90 degrees."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(pixels).copy()).save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".PNG"])
def test_training_reads_what_run_reads(suffix: str, tmp_path: Path) -> None:
    for path in (picture(tmp_path / f"plain{suffix}"), turned(tmp_path / f"turned{suffix}", COLOR)):
        image = read_image(path)
        np.testing.assert_array_equal(image, decode_file(path.read_bytes()))
        assert image.shape == COLOR.shape
        assert np.abs(image.astype(int) - COLOR).mean() < 6


def test_every_part_is_turned_as_its_own_file_says(tmp_path: Path) -> None:
    turned(tmp_path / "vi" / "a.jpg", COLOR)
    turned(tmp_path / "ir" / "a.png", THERMAL)
    ids = np.ones((HEIGHT, WIDTH), np.uint8)
    ids[:5] = 0
    turned(tmp_path / "label" / "a.png", ids)
    assert check(tmp_path)[0] == 0
    found = scene(tmp_path)
    np.testing.assert_array_equal(found.thermal, THERMAL)
    np.testing.assert_array_equal(found.label, ids)


def test_a_part_that_fits_the_stored_pixels_only_is_a_fault(tmp_path: Path) -> None:
    turned(tmp_path / "vi" / "a.jpg", COLOR)
    picture(tmp_path / "ir" / "a.png", np.rot90(THERMAL).copy())
    code, output = check(tmp_path)
    assert code == 1
    assert "thermal of another aspect ratio" in output


def test_half_a_jpeg_is_refused_and_one_without_its_end_marker_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    path = picture(tmp_path / "vi" / "a.jpg", noise)
    data, whole = path.read_bytes(), read_image(path)
    path.write_bytes(data[:-2])
    np.testing.assert_array_equal(read_image(path), whole)
    assert check(tmp_path)[0] == 0
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.jpg'.*cut"):
        scene(tmp_path)
    code, output = check(tmp_path)
    assert code == 1 and "1 x unreadable 'vi/a.jpg'" in output


def test_visible_pictures_of_a_folder_in_16_bits_are_on_one_scale(tmp_path: Path) -> None:
    dark = np.full((8, 8, 3), 800, np.uint16)  # of 4095: it would also fit into 10 bits
    lit = dark.copy()
    lit[0, 0] = 4000
    for name, values in (("a", dark), ("b", lit)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
    (tmp_path / "c.png").write_bytes(b"damaged")
    found = [read_image(tmp_path / f"{name}.png") for name in "ab"]
    assert found[0][4, 4].tolist() == found[1][4, 4].tolist() == [800 >> 4] * 3


def test_thermal_pictures_of_16_bits_are_stretched_and_that_is_said(tmp_path: Path) -> None:
    kelvin = 29315 + 8 * THERMAL.astype(np.uint16)
    kelvin[0, 0] = 65535  # a dead pixel does not matter
    picture(tmp_path / "vi" / "a.png")
    picture(tmp_path / "ir" / "a.png", kelvin)
    levels, stretched = read_thermal(tmp_path / "ir" / "a.png")
    assert stretched and (levels.min(), levels.max()) == (0, 255)
    assert np.corrcoef(levels.ravel(), THERMAL.ravel())[0, 1] > 0.99
    found = scene(tmp_path).thermal
    assert found is not None and len(np.unique(found)) > 40
    code, output = check(tmp_path)
    assert code == 0
    assert "no file says what the levels of 1 pictures in 16 bits or floats mean" in output
    assert check_split(dataset("folder"), tmp_path, ".").depths == {"16 bit": 1}


def test_thermal_pictures_of_floats_are_stretched(tmp_path: Path) -> None:
    celsius = THERMAL.astype(np.float32) / 10
    celsius[3, 3] = np.nan
    path = tmp_path / "a.tiff"
    Image.fromarray(celsius).save(path)
    levels, stretched = read_thermal(path)
    assert stretched and (levels.min(), levels.max()) == (0, 255)


def test_thermal_pictures_of_8_bits_are_left_as_they_are(tmp_path: Path) -> None:
    gray = picture(tmp_path / "gray.png", THERMAL)
    rgb = picture(tmp_path / "rgb.png", THERMAL[..., None].repeat(3, 2))
    for path in (gray, rgb):
        levels, stretched = read_thermal(path)
        assert not stretched
        np.testing.assert_array_equal(levels, THERMAL)


@pytest.mark.parametrize("palette", [cv2.COLORMAP_JET, cv2.COLORMAP_INFERNO, cv2.COLORMAP_HOT])
def test_false_colours_are_no_thermal_picture(palette: int, tmp_path: Path) -> None:
    picture(tmp_path / "vi" / "a.png")
    picture(tmp_path / "ir" / "a.png", np.asarray(cv2.applyColorMap(GRAY, palette)))
    code, output = check(tmp_path)
    assert code == 1 and "thermal picture 'ir/a.png' is in colours" in output
    with pytest.raises(DataError, match=r"ir/a\.png' is in colours .*; expected gray"):
        scene(tmp_path)


def test_suffixes_are_taken_in_upper_case(tmp_path: Path) -> None:
    picture(tmp_path / "vi" / "a.JPG")
    picture(tmp_path / "ir" / "a.Png", THERMAL)
    label(tmp_path / "label" / "a.PNG", [1, 2])
    picture(tmp_path / "ped" / "PNGImages" / "b.PNG")
    label(tmp_path / "ped" / "PedMasks" / "b_MASK.PNG", [1, 0])
    found = scene(tmp_path)
    assert found.thermal is not None and set(np.unique(found.label)) == {1, 2}
    code, output = check(tmp_path / "ped", "pennfudan")
    assert code == 0 and "│ 1 " in output


def test_labels_of_another_suffix_are_a_fault_and_not_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "vi" / "a.png")
    label(tmp_path / "label" / "a.jpg", [1, 2])
    code, output = check(tmp_path)
    assert code == 1
    assert "1 x label missing label/a.png" in output
    assert "1 not taken: label/a.jpg" in output
    with pytest.raises(DataError, match=r"1 label files .* are missing .*label/a\.png"):
        scene(tmp_path)


def test_a_jpeg_under_the_name_of_a_label_is_refused(tmp_path: Path) -> None:
    label(tmp_path / "a.jpg", [1, 2]).rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png' is a JPEG, which changes ids"):
        read_label(tmp_path / "a.png", PROJECT)


def test_what_is_not_taken_is_told_in_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "vi" / "a.png")
    (tmp_path / "vi" / "notes.txt").write_text("dusk")
    (tmp_path / "vi" / ".hidden").write_text("")
    picture(tmp_path / "thermal" / "a.png", THERMAL)
    code, output = check(tmp_path)
    assert code == 0
    assert "split .: 2 not taken: thermal, vi/notes.txt" in output
