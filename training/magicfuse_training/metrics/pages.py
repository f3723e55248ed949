# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes results into pages of the documentation: between two marker lines, and pictures beside.

Everything outside the markers is written by hand and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from magicfuse_ros.errors import MediaError
from magicfuse_ros.output_files import check_file, write_text
from magicfuse_training.errors import TrainingError


def split_page(path: Path, start: str, end: str, what: str = "page") -> tuple[str, str]:
    """Return the parts of a page before and after its marked section.

    Args:
        path: the page.
        start: the line before the section.
        end: the line after it.
        what: what the page is, for the message.

    Raises:
        TrainingError: if it cannot be read, or lacks the two markers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{what} '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{what} '{path}' is not UTF-8: {error.reason}") from error
    before, _, section = text.partition(start)
    _, found, after = section.partition(end)
    if not found:
        raise TrainingError(f"{what} '{path}' lacks the lines '{start}' and '{end}', in this order")
    return before, after


def check_page(path: Path, start: str, end: str) -> None:
    """Check that `write_page` can write a page, without writing it.

    Raises:
        MediaError: if the file cannot be written.
        TrainingError: see `split_page`; a page that does not exist is fine.
    """
    check_file(path)
    if path.exists():
        split_page(path, start, end)


def write_page(path: Path, start: str, end: str, body: str, what: str = "page") -> None:
    """Replace the marked section of a page; make the page if it does not exist.

    The arguments are those of `split_page`, and the new content of the section.

    Raises:
        MediaError: if it cannot be written.
        TrainingError: see `split_page`.
    """
    before, after = split_page(path, start, end, what) if path.exists() else ("", "\n")
    write_text(path, f"{before}{start}\n\n{body}\n\n{end}{after}")


def write_pictures(page: Path, pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Write PNG files beside a page, as PAGE_NAME.png; return their file names by name.

    Raises:
        MediaError: if one cannot be written.
    """
    names = {name: f"{page.stem}_{name}.png" for name in pictures}
    for name, data in pictures.items():
        try:
            (page.parent / names[name]).write_bytes(data)
        except OSError as error:
            raise MediaError(f"cannot write '{names[name]}': {error.strerror}") from error
    return names
