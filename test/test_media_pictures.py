# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import open_source
from magicfuse_ros.media.pictures import left_out, natural_key
from magicfuse_ros.output_files import write_png
from media_files import picture, write_picture


def test_one_picture(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "Street 1.PNG", picture())
    source = open_source(path)
    assert (source.name, source.frame_rate, len(source)) == (str(path), None, 1)
    (frame,) = source
    assert (frame.name, frame.stamp_ns) == ("Street 1", 0)
    np.testing.assert_array_equal(frame.image, picture())
    assert frame.image.flags.c_contiguous


def test_a_folder_is_read_in_natural_order_and_again(tmp_path: Path) -> None:
    names = ["img1.png", "img2.jpg", "img10.bmp", "img011.tiff", "other.webp", "x.ppm"]
    for name in reversed(names):
        write_picture(tmp_path / name, picture())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"left by an editor")
    (tmp_path / "folder.png").mkdir()
    source = open_source(tmp_path)
    assert len(source) == len(names)
    for _ in range(2):
        assert [frame.name for frame in source] == [Path(name).stem for name in names]
        assert source.refused == []


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_that_claims_to_be_gigapixels_is_not_decoded(tmp_path: Path, suffix: str) -> None:
    path = write_picture(tmp_path / f"large{suffix}", picture())
    data = bytearray(path.read_bytes())
    size = slice(16, 24) if suffix == ".png" else slice((at := data.find(b"\xff\xc0") + 5), at + 4)
    data[size] = (30000).to_bytes((size.stop - size.start) // 2, "big") * 2
    path.write_bytes(data)
    source = open_source(tmp_path)
    assert list(source) == []
    (refused,) = source.refused
    assert "picture is 30000x30000; at most" in refused.reason


def test_natural_order_compares_numbers_by_value() -> None:
    names = ["B2", "a10b2", "a2", "a10b10", "10", "9", "a", ""]
    ordered = ["", "9", "10", "a", "a2", "a10b2", "a10b10", "B2"]
    assert sorted(names, key=natural_key) == ordered


def test_names_are_unique_where_stems_meet(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.bmp", "a_2.png"):
        write_picture(tmp_path / name, picture())
    names = [frame.name for frame in open_source(tmp_path)]
    assert names == ["a", "a_3", "a_4", "a_2"]


def test_a_damaged_picture_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", picture())
    (tmp_path / "2.png").write_bytes(b"\x89PNG and then nothing")
    (tmp_path / "3.jpg").write_bytes(b"")
    write_picture(tmp_path / "4.png", picture())
    source = open_source(tmp_path)
    assert len(source) == 4
    for _ in range(2):
        assert [frame.name for frame in source] == ["1", "4"]
        assert [refusal.name for refusal in source.refused] == ["2.png", "3.jpg"]
        assert "damaged" in source.refused[0].reason
        assert "empty" in source.refused[1].reason


def test_a_picture_that_vanished_is_refused(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        write_picture(tmp_path / name, picture())
    source = open_source(tmp_path)
    (tmp_path / "1.png").unlink()
    assert [frame.name for frame in source] == ["2"]
    assert source.refused[0].name == "1.png"
    assert "No such file" in source.refused[0].reason


def test_paths_without_frames_are_refused(tmp_path: Path) -> None:
    empty_folder = tmp_path / "folder"
    empty_folder.mkdir()
    unknown = tmp_path / "frames.xyz"
    unknown.write_bytes(b"1")
    for path, word in [
        (tmp_path / "missing.png", "does not exist"),
        (empty_folder, "holds no picture"),
        (unknown, "'.xyz'; expected a folder or one of .bmp"),
    ]:
        with pytest.raises(MediaError, match=word) as caught:
            open_source(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "mp4", "mcap", "db3"])
def test_empty_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty.{suffix}"
    path.touch()
    with pytest.raises(MediaError, match=r"empty\.\w+' is empty"):
        open_source(path)


def test_a_topic_is_refused_where_there_is_no_bag(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", picture())
    with pytest.raises(MediaError, match=r"topic is '/image'.*a\.png' is not a rosbag2"):
        open_source(path, "/image")


def test_png_files_are_exact_and_make_their_folders(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.png"
    write_png(path, picture())
    (frame,) = open_source(path)
    np.testing.assert_array_equal(frame.image, picture())
    write_png(path, picture()[..., 0])
    (frame,) = open_source(path)
    np.testing.assert_array_equal(frame.image[..., 2], picture()[..., 0])


def test_a_png_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.png"
    with pytest.raises(MediaError, match=r"cannot write .*a\.png"):
        write_png(path, picture())


def test_the_description_of_a_data_set_makes_no_bag(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "metadata.yaml").write_text("license: CC-BY\n")
    assert len(open_source(tmp_path)) == 1


def test_what_is_no_picture_is_known(tmp_path: Path) -> None:
    for name in ("a.JPG", "b10.txt", "b9.heic", ".hidden"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "mask").mkdir()
    assert [path.name for path in left_out(tmp_path)] == ["b9.heic", "b10.txt", "mask"]


def test_deep_pictures_of_a_folder_are_on_one_scale(tmp_path: Path) -> None:
    for name, level in (("1.png", 4000), ("2.png", 400)):
        cv2.imwrite(str(tmp_path / name), np.full((4, 4), level, np.uint16))
    assert [frame.image.max() for frame in open_source(tmp_path)] == [250, 25]
