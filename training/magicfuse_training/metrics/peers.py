# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads fused images of other methods from a folder for an evaluation.

The folder has the layout of the evaluation's own inputs (`--inputs`):

    [SET/]CONDITION/NAME.*   frames under a condition
    [SET/]NAME.*             frames as they are: clean, and at night

SET is the set's name in the report ("msrs dev"), NAME the frame's name in its set. Images are gray
or RGB. They have the frame's size, or the stored size if a set stores frames at another width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from magicfuse_ros.media.pictures import PICTURE_SUFFIXES
from magicfuse_training.arrays import U8
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import read_image
from magicfuse_training.data.scenes import resized
from magicfuse_training.metrics.frames import Frame

AS_THEY_ARE = ("clean", "night")
_SHOWN = 3


@dataclass(frozen=True)
class Peer:
    """Another method: its name in tables, and the folder of its fused images."""

    name: str
    folder: Path

    @classmethod
    def parse(cls, text: str, taken: Sequence[str] = ()) -> Peer:
        """Read "NAME=DIR".

        Args:
            text: the option.
            taken: names of other rows.

        Raises:
            DataError: for any other form, a name already in use, or a missing folder.
        """
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise DataError(f"fused is '{text}'; expected NAME=DIR, as in 'TarDAL=out/tardal'")
        if name in taken:
            raise DataError(f"fused is '{text}'; '{name}' is the name of another row")
        peer = cls(name, Path(os.path.expanduser(folder)))
        if not peer.folder.is_dir():
            raise DataError(f"fused is '{text}'; folder '{peer.folder}' does not exist")
        return peer

    def files(
        self, set_name: str, condition: str, names: Sequence[str], left_out: Sequence[str]
    ) -> dict[str, Path]:
        """Return the images of some frames by name; empty if there are none.

        Args:
            set_name: the set.
            condition: the condition.
            names: the frames that are scored.
            left_out: the other frames of the set, which `every` leaves out.

        Raises:
            DataError: if only some exist: the rows would be means over different frames. Also if
                there are degraded frames that `every` leaves out, because `every` decides how a
                frame is degraded.
        """
        for place in self._places(set_name, condition):
            found = {name: file for name in names if (file := _picture(place, name))}
            if missing := [name for name in names if name not in found]:
                if not found:
                    continue
                shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
                raise DataError(
                    f"fused images of '{self.name}' in '{place}': {len(missing)} of the "
                    f"{len(names)} frames of {set_name}, {condition}, are missing: {shown}"
                )
            if condition not in AS_THEY_ARE and any(_picture(place, name) for name in left_out):
                raise DataError(
                    f"fused images of '{self.name}' in '{place}' were made with another --every: "
                    "it also decides how strongly a frame is degraded; give the --every that wrote "
                    "their inputs"
                )
            return found
        return {}

    def _places(self, set_name: str, condition: str) -> Iterator[Path]:
        for base in (self.folder / set_name, self.folder):
            yield base / condition
            if condition in AS_THEY_ARE:
                yield base


def _picture(place: Path, name: str) -> Path | None:
    files = (place / f"{name}{suffix}" for suffix in PICTURE_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def read_fused(path: Path, frame: Frame, width_factor: int = 1) -> U8:
    """Read a fused image as RGB (H, W, 3) at the frame's size.

    Raises:
        DataError: if it is damaged, or has neither the frame's nor the stored size.
    """
    image = read_image(path)
    height, width = frame.visible.shape[:2]
    if image.shape[:2] in ((height, width), (height, width // width_factor)):
        return resized(image, (height, width))
    raise DataError(
        f"'{path}' is {image.shape[1]}x{image.shape[0]}; expected {width}x{height}, the size of "
        f"frame '{frame.name}'"
    )
