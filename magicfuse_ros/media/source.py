# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The interface that all sources of frames share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from magicfuse_ros.image_codec import Pixels


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes:
        image: RGB, HxWx3 uint8, C-contiguous.
        name: safe as a file name without suffix, and unique in its source.
        stamp_ns: time in nanoseconds, see the source; 0 if the source has no clock.
    """

    image: Pixels
    name: str
    stamp_ns: int


@dataclass(frozen=True)
class Refusal:
    """A frame that could not be read or fused."""

    name: str
    reason: str


def mostly_missing(source: Source, missing: int) -> bool:
    """Return whether a cut or damaged source lacks more than half of its announced frames.

    `missing` is the source's own count after its last frame.
    """
    return missing > 0 and 2 * (missing + 1) > len(source)  # the first lost frame is in `refused`


class Source(Protocol):
    """Frames in order; it can be iterated many times.

    Attributes:
        name: the file or folder as the user gave it.
        frame_rate: frames per second; None if the source has no clock.
        refused: frames that could not be read since the latest iteration began. The iteration skips
            them and continues.
        missing: number of further frames that the source announces but does not hold, because it is
            cut or damaged; known after the last frame. The first lost frame is in `refused`, with
            the reason.
        damage: what else is wrong with the source, in sentences: it costs no frame; known after the
            last frame.
    """

    name: str
    frame_rate: float | None
    refused: list[Refusal]
    missing: int
    damage: list[str]

    def __len__(self) -> int:
        """Return how many frames the source announces, including damaged ones."""

    def __iter__(self) -> Iterator[Frame]:
        """Start from the first frame."""
