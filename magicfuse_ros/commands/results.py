# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The result folder of `magicfuse run`, kept apart from the inputs and from older results.

OUT/KIND/FRAME.png         an image for every frame, in a folder for each of `KINDS`
OUT/contact_sheet.png
OUT/report.json            names the frames
OUT/.magicfuse_unfinished  names them until there is a report: a kill leaves it
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from magicfuse_ros.errors import MediaError
from magicfuse_ros.fuser import OUTPUTS
from magicfuse_ros.media import Source, open_source
from magicfuse_ros.media.pictures import (
    PICTURE_SUFFIXES,
    PictureSource,
    left_out,
    pictures_in,
)
from magicfuse_ros.media.several import SeveralSources
from magicfuse_ros.output_files import read_object

KINDS = (*OUTPUTS, "overlay")
CONTACT_SHEET = "contact_sheet.png"
REPORT = "report.json"
_UNFINISHED = ".magicfuse_unfinished"  # a frame's name as JSON in each line
_SHOWN = 3


def open_inputs(paths: Sequence[Path], topic: str | None, console: Console) -> Source:
    """Open one or several inputs, but skip the contact sheet of earlier results.

    Raises:
        MediaError: as for `open_source`.
    """
    if len(paths) == 1:
        return _open(paths[0], topic, console)
    return SeveralSources([_open(path, topic, console, one_of_several=True) for path in paths])


def _open(path: Path, topic: str | None, console: Console, one_of_several: bool = False) -> Source:
    if one_of_several and path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES and not topic:
        return PictureSource(path, [path])  # as in a folder, an empty file is rejected later
    source = open_source(path, topic)
    if not (isinstance(source, PictureSource) and path.is_dir()):
        return source
    if others := left_out(path):
        shown = ", ".join(f"'{other.name}'" for other in others[:_SHOWN])
        line = f"not taken in '{path}': {shown}{', ...' if len(others) > _SHOWN else ''}"
        line += f" ({len(others)} in all), which are not pictures"
        console.print(Text(line, "dim"), soft_wrap=True)
    pictures = pictures_in(path)
    others = [picture for picture in pictures if picture.name != CONTACT_SHEET]
    if len(others) == len(pictures) or read_report(path) is None:
        return source
    sheet = path / CONTACT_SHEET
    if not others:
        raise MediaError(f"folder '{path}' holds no picture but '{sheet}', which is a result")
    console.print(Text(f"left out '{sheet}': it is a result", "yellow"), soft_wrap=True)
    return PictureSource(path, others)


def check_apart(inputs: Sequence[Path], out: Path) -> None:
    """Check that no result would be written among the inputs or over an input.

    Raises:
        MediaError: if one would be; the message names the input and the folder.
    """
    folder = Path(os.path.realpath(out))  # resolve() fails in a loop of links
    results = [folder / name for name in (*KINDS, CONTACT_SHEET, REPORT)]
    for path in inputs:
        found = Path(os.path.realpath(path))
        if found == folder and found.is_dir():
            raise MediaError(
                f"out is '{out}', the input itself: results would lie among its files; "
                f"expected another folder, such as '{out / 'fused'}'"
            )
        if any(result == found or result in found.parents for result in results):
            raise MediaError(
                f"input '{path}' lies where the results in '{out}' go; expected another out"
            )


def check_replaceable(out: Path) -> None:
    """Check that the report and the contact sheet would replace no file that no run wrote.

    Raises:
        MediaError: if they would; the message names the file.
    """
    report, sheet = out / REPORT, out / CONTACT_SHEET
    if read_report(out) is not None:
        return
    if os.path.lexists(report):
        try:
            content = report.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise MediaError(f"'{report}' cannot be read: {error.strerror}") from error
        raise MediaError(
            f"'{report}' holds {reprlib.repr(content)}; expected a report that magicfuse run "
            "wrote: remove it or choose another out"
        )
    if os.path.lexists(sheet):
        raise MediaError(
            f"'{sheet}' exists, and no report of an earlier run is beside it; remove it or choose "
            "another out"
        )


def remove_earlier(out: Path, console: Console) -> None:
    """Remove the results of an earlier run, finished or killed, and say so.

    Raises:
        MediaError: if a file cannot be removed.
    """
    report = read_report(out)
    unfinished = _read_unfinished(out)
    try:
        if report is not None or unfinished:
            frames = report["frames"] if report is not None else []
            names = {*(frame["name"] for frame in frames), *unfinished}
            for kind in KINDS:
                for name in names:
                    if Path(name).name == name:  # otherwise we did not write it
                        (out / kind / f"{name}.png").unlink(missing_ok=True)
            for name in (CONTACT_SHEET, REPORT, _UNFINISHED):
                (out / name).unlink(missing_ok=True)
            line = f"replaced the results of an earlier run in '{out}', {len(names)} frames"
            console.print(Text(line, "yellow"), soft_wrap=True)
        for kind in KINDS:
            if (out / kind).is_dir() and (others := len(list((out / kind).iterdir()))):
                line = f"'{out / kind}' holds {others} other files, which stay beside the results"
                console.print(Text(line, "yellow"), soft_wrap=True)
    except OSError as error:
        raise MediaError(f"cannot remove '{error.filename}': {error.strerror}") from error


def check_free(out: Path, name: str) -> None:
    """Check that no other file lies where the images of a frame go, such as a label of a data set.

    Raises:
        MediaError: if one does; the message names it.
    """
    for path in (out / kind / f"{name}.png" for kind in KINDS):
        if os.path.lexists(path):
            raise MediaError(
                f"'{path}' exists, and no report of an earlier run names it; remove it or choose "
                "another out"
            )


def note_frame(out: Path, name: str) -> None:
    """Note a frame before its images are written: only a run that ends can write a report.

    Raises:
        MediaError: if the note cannot be written.
    """
    path = out / _UNFINISHED
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(name) + "\n")
    except OSError as error:
        raise MediaError(f"cannot write '{path}': {error.strerror}") from error


def forget_notes(out: Path) -> None:
    """Remove the notes of the frames once the report names them."""
    with suppress(OSError):  # the next run will remove them
        (out / _UNFINISHED).unlink(missing_ok=True)


def _read_unfinished(out: Path) -> list[str]:
    names = []
    with suppress(OSError):
        for line in (out / _UNFINISHED).read_bytes().splitlines():
            with suppress(ValueError):  # the last line may be cut
                names.append(json.loads(line))
    return [name for name in names if isinstance(name, str)]


def remove_frame(out: Path, name: str) -> None:
    """Remove the images of an unfinished frame, so that report and images always agree."""
    for kind in KINDS:
        with suppress(OSError):  # it could not be written either, as under too long a name
            (out / kind / f"{name}.png").unlink(missing_ok=True)


def read_report(folder: Path) -> dict[str, Any] | None:
    """Return the report of the results in a folder; None if there is none, or of another kind."""
    report = read_object(folder / REPORT)
    try:
        named = all(isinstance(frame["name"], str) for frame in report["frames"])
    except (TypeError, KeyError):
        return None
    return report if named and "median_ms" in report else None
