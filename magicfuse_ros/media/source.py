"""What every source of frames has in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from magicfuse_ros.image_codec import Image


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes:
        image: RGB, HxWx3 uint8, C-contiguous.
        name: safe as a file name without suffix, and unique in its source.
        stamp_ns: time in nanoseconds, see the source; 0 where the source has no clock.
    """

    image: Image
    name: str
    stamp_ns: int


@dataclass(frozen=True)
class Refusal:
    """A frame that could not be read or fused."""

    name: str
    reason: str


def mostly_missing(source: Source, missing: int) -> bool:
    """Say whether more than half of what a source announces is missing, as it is cut or damaged.

    `missing` is that of the source after its last frame.
    """
    return missing > 0 and 2 * (missing + 1) > len(source)  # the first is among the refused


class Source(Protocol):
    """Frames in their order; may be iterated again and again.

    Attributes:
        name: the file or folder as it was given.
        frame_rate: frames a second, or None where the source has no clock.
        refused: the frames that could not be read since the latest iteration began. They are left
            out, the others go on.
        missing: how many further frames the source announces but does not hold, as it is cut or
            damaged; known after the last frame. The first of them is in `refused`, with the reason.
    """

    name: str
    frame_rate: float | None
    refused: list[Refusal]
    missing: int

    def __len__(self) -> int:
        """Return how many frames the source announces; damaged ones count."""

    def __iter__(self) -> Iterator[Frame]:
        """Start from the first frame."""
