# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Files that commands write: checked before the work, written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from magicfuse_ros.errors import MediaError
from magicfuse_ros.output_files import check_file, check_folder, make_folder, write_text


def test_what_can_be_written_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    check_file(tmp_path / "new.json")
    check_folder(tmp_path / "deep" / "new")
    check_file(Path("/dev/null"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("check", [check_file, check_folder, make_folder])
def test_a_place_that_takes_no_files_is_named(tmp_path: Path, check: object) -> None:
    assert callable(check)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", Path("/proc/self/x")):  # nobody can write there
        with pytest.raises(MediaError, match=str(path)):
            check(path)


def test_a_folder_is_no_file_and_its_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a folder"):
        check_file(tmp_path)
    with pytest.raises(MediaError, match=r"'.*/no' does not exist"):
        check_file(tmp_path / "no" / "x.json")


def test_a_text_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "x.json", tmp_path / "link.json"
    write_text(path, "old")
    link.symlink_to(path)

    def full(file: Path, *_: object, **__: object) -> None:
        file.write_bytes(b"ne")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(MediaError, match=r"x\.json': No space left"):
            write_text(link, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    write_text(link, "new")
    assert path.read_text() == "new" and link.is_symlink()
    write_text(Path("/dev/null"), "new")
    assert Path("/dev/null").is_char_device()
