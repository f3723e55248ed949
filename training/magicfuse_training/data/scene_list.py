# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads scene lists as people save them: with BOM, as UTF-16, from Windows, with suffixes."""

from __future__ import annotations

import codecs
from pathlib import Path, PurePosixPath

from magicfuse_ros.media.pictures import PICTURE_SUFFIXES
from magicfuse_training.data.errors import DataError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_scene_list(path: Path) -> list[str]:
    """Return the names in a text file, in order, without duplicates.

    A name may have a folder before it and a picture suffix after it. A line may hold several names:
    an image and its label are one scene.

    Raises:
        DataError: if the file cannot be read, is not text, or names no scene.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"list of scenes '{path}': {error.strerror}") from error
    try:
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"list of scenes '{path}' is not text in UTF-8 or UTF-16; "
            f"byte {error.start} is {data[error.start]:#04x}"
        ) from error
    if "\0" in text:
        raise DataError(f"list of scenes '{path}' is not text: it has zero bytes")
    names = dict.fromkeys(map(_stem, text.split()))
    if not names:
        raise DataError(f"list of scenes '{path}' is empty; expected a name in each line")
    return list(names)


def _stem(word: str) -> str:
    """Return a name without folder and picture suffix; dots inside the name stay."""
    name = PurePosixPath(word.replace("\\", "/")).name
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in PICTURE_SUFFIXES else name
