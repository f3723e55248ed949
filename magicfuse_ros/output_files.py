# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks and writes the output files and folders of commands, so that commands fail early."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Pixels


def check_file(path: Path) -> None:
    """Check that a file can be written, without writing it.

    Raises:
        MediaError: if it cannot; the message names the file and the reason.
    """
    if path.is_dir():
        raise MediaError(f"cannot write '{path}': it is a folder; expected a file")
    if _is_device(path):
        return
    if not path.parent.is_dir():
        raise MediaError(f"cannot write '{path}': its folder '{path.parent}' does not exist")
    _try_to_write(path.parent, path)


def check_folder(folder: Path) -> None:
    """Check that files can be written into a folder or that it can be made, without writing.

    Raises:
        MediaError: if not; the message names the folder and the reason.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise MediaError(f"cannot make folder '{folder}': '{there}' is a file")
    _try_to_write(there, folder)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and check that files can be written into it.

    Raises:
        MediaError: if not; the message names the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"cannot make folder '{folder}': {error.strerror}") from error
    _try_to_write(folder, folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole: a full disk or a kill leaves the old file or none, not a part.

    Raises:
        MediaError: if that fails; the message names the file and the reason.
    """
    device = _is_device(path)
    path = path if device else Path(os.path.realpath(path))  # a link stays a link
    # Two commands may write the same file.
    partial = path if device else path.with_name(f".{os.getpid()}.{path.name}.partial")
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            if not device:
                os.replace(partial, path)
        except BaseException:
            if not device:
                partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MediaError(f"cannot write '{path}': {error.strerror}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that may be somebody else's; {} if it holds none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def write_png(path: Path, image: Pixels) -> None:
    """Write an RGB (HxWx3) or gray (HxW) uint8 image, and make the folders above it.

    Raises:
        MediaError: if that fails; the message names the file and the reason.
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, data = cv2.imencode(".png", pixels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # a part of it looks like a result
        raise MediaError(f"cannot write '{path}': {error.strerror}") from error


def _is_device(path: Path) -> bool:
    """Return whether a path exists but is not a regular file, such as /dev/stdout or a pipe."""
    return path.exists() and not path.is_file()


def _try_to_write(folder: Path, named: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MediaError(f"cannot write '{named}': {error.strerror}") from error
