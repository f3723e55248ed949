# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train degradations`: a sheet for visual inspection."""

from pathlib import Path

import cv2
import numpy as np

from cli_run import train


def picture(path: Path, seed: int) -> Path:
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(corners, (64, 48)))
    return path


def test_a_sheet_is_drawn_the_same_for_the_same_seed(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", 0)
    sheets = []
    for name, seed in (("one", "1"), ("same", "1"), ("other", "2")):
        out = tmp_path / "new" / f"{name}.png"
        code, output = train("degradations", image, "--out", out, "--seed", seed)
        assert code == 0, output
        sheets.append(cv2.imread(str(out)))
    assert np.array_equal(sheets[0], sheets[1]) and not np.array_equal(sheets[0], sheets[2])


def test_two_pictures_make_a_sheet_of_twice_the_rows(tmp_path: Path) -> None:
    pictures = [picture(tmp_path / f"{i}.png", i) for i in range(2)]
    heights = []
    for some in (pictures[:1], pictures):
        out = tmp_path / "sheet.png"
        assert train("degradations", *some, "--out", out)[0] == 0
        heights.append(cv2.imread(str(out)).shape[0])
    assert heights[1] > 1.8 * heights[0]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    for path in (text, loop, tmp_path / "missing.png"):
        code, output = train("degradations", path, "--out", tmp_path / "o")
        assert code == 2 and path.name in output
