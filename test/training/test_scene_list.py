# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Scene lists as people save them."""

from pathlib import Path

import pytest

from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.scene_list import read_scene_list

NAMES = ["00001D", "00002N_flip", "a.b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", ["", ".png", ".PNG"])
def test_names_are_the_same_however_the_list_is_saved(
    tmp_path: Path, encoding: str, newline: str, suffix: str
) -> None:
    path = tmp_path / "train.txt"
    text = newline.join(["", *(f"{name}{suffix} " for name in NAMES), ""])
    path.write_bytes(text.encode(encoding))
    assert read_scene_list(path) == NAMES


def test_a_line_may_name_an_image_and_its_label(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("images/00001D.png labels/00001D.png\nimages\\00002N.jpg labels\\00002N.png\n")
    assert read_scene_list(path) == ["00001D", "00002N"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n", "is empty"),
        (b"\x89PNG\r\n", "is not text in UTF-8 or UTF-16; byte 0 is 0x89"),
        (b"0\x000\x001\x00D\x00", "zero bytes"),
        (b"\xff\xfe0", "is not text"),
    ],
)
def test_what_is_no_list_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"'{path}'.*{words}"):
        read_scene_list(path)


def test_mirrored_copies_of_nights_are_nights() -> None:
    night = dataset("mfnet").night
    assert callable(night)
    names = ("00001N", "00001N_flip", "00001D", "00001D_flip")
    assert [night(name) for name in names] == [True, True, False, False]


def test_a_folder_without_pictures_says_where_they_are_expected(tmp_path: Path) -> None:
    folder = dataset("folder")
    with pytest.raises(DataError, match=f"no folder 'vi' .*'{tmp_path}/vi/.*{tmp_path}/train/vi"):
        folder.records(tmp_path, "train")
    (tmp_path / "vi").mkdir()
    with pytest.raises(DataError, match=f"'{tmp_path}' holds no scene of folder; expected vi/"):
        folder.records(tmp_path, ".")
