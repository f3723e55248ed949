# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A picture, or a folder of pictures, as a source of frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import BitDepth, decode_file
from magicfuse_ros.media.source import Frame, Refusal

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder in natural order (`img2` before `img10`).

    Skip files of other types, hidden files and subfolders.

    Raises:
        MediaError: if there is no picture.
    """
    found = [path for path in folder.iterdir() if _is_picture(path)]
    if not found:
        raise MediaError(
            f"folder '{folder}' holds no picture ({' '.join(PICTURE_SUFFIXES)}) "
            "and no metadata.yaml of a rosbag2"
        )
    return sorted(found, key=lambda path: natural_key(path.name))


def left_out(folder: Path) -> list[Path]:
    """Return the files and folders in a folder that `pictures_in` skips.

    Hidden ones are not listed: editors and file browsers keep them for their own use.
    """
    others = [p for p in folder.iterdir() if not _is_picture(p) and not p.name.startswith(".")]
    return sorted(others, key=lambda path: natural_key(path.name))


def _is_picture(path: Path) -> bool:
    known = path.suffix.lower() in PICTURE_SUFFIXES
    return known and not path.name.startswith(".") and path.is_file()


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that orders numbers inside names by value."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


class PictureSource:
    """Pictures as frames; they have no clock, so every stamp is 0.

    A picture that cannot be read becomes a refusal, and reading continues. All 16-bit pictures
    count as one camera's, see `BitDepth`.
    """

    def __init__(self, path: Path, pictures: Sequence[Path]) -> None:
        """Take the path that the user gave and the files to read, in order."""
        self.name = str(path)
        self.frame_rate: float | None = None
        self.refused: list[Refusal] = []
        self.missing = 0  # every picture is either read or refused
        self.damage: list[str] = []
        self._pictures = _unique_names(pictures)

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self._pictures)

    def __iter__(self) -> Iterator[Frame]:
        """Read the pictures in order."""
        self.refused.clear()
        depth = BitDepth(intact=True)
        for name, path in self._pictures.items():
            try:
                image = decode_file(path.read_bytes(), depth)
            except OSError as error:
                self.refused.append(Refusal(path.name, error.strerror or str(error)))
            except FrameError as error:
                self.refused.append(Refusal(path.name, str(error)))
            else:
                yield Frame(image, name, 0)


def _unique_names(pictures: Sequence[Path]) -> dict[str, Path]:
    """Name each picture by its stem; if stems collide (a.png and a.jpg), append _2, _3, ..."""
    used = {path.stem for path in pictures}
    named: dict[str, Path] = {}
    for path in pictures:
        name = unused(path.stem, used) if path.stem in named else path.stem
        used.add(name)
        named[name] = path
    return named


def unused(name: str, used: set[str]) -> str:
    """Return a name that is not in use: append _2, _3, ... if necessary."""
    count, found = 1, name
    while found in used:
        count += 1
        found = f"{name}_{count}"
    return found
