# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Several inputs as one source of frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from magicfuse_ros.media.pictures import PictureSource, unused
from magicfuse_ros.media.source import Frame, Refusal, Source


class SeveralSources:
    """The frames of one source after the other; see `Source`.

    A picture keeps its name; any other frame's name starts with the name of its source.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        """Take the sources in their order."""
        self.name = ", ".join(source.name for source in sources)
        self.frame_rate: float | None = None
        self.refused: list[Refusal] = []
        self.missing = 0
        self.damage: list[str] = []
        self._sources = list(sources)

    def __len__(self) -> int:
        """Return how many frames the sources announce."""
        return sum(map(len, self._sources))

    def __iter__(self) -> Iterator[Frame]:
        """Read the sources in order."""
        self.refused, self.missing, self.damage = [], 0, []
        names: set[str] = set()
        for source in self._sources:
            refused, missing = self.refused, self.missing  # of the earlier sources
            for frame in source:
                self.refused = [*refused, *_refused(source)]
                name = frame.name if _is_picture(source) else f"{_stem(source)}_{frame.name}"
                name = unused(name, names)
                names.add(name)
                yield replace(frame, name=name)
            self.refused = [*refused, *_refused(source)]
            self.missing = missing + source.missing
            self.damage += source.damage


def _refused(source: Source) -> list[Refusal]:
    """Return a source's refusals, with the name of the source."""
    if _is_picture(source):
        return [Refusal(source.name, r.reason) for r in source.refused]
    return [Refusal(f"{source.name}: {r.name}", r.reason) for r in source.refused]


def _is_picture(source: Source) -> bool:
    return isinstance(source, PictureSource) and not Path(source.name).is_dir()


def _stem(source: Source) -> str:
    """Return the name of a source's file or folder, for use in file names."""
    return re.sub(r"[^\w.-]", "_", Path(source.name).resolve().stem) or "root"
