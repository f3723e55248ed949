"""Human person boxes of MSRS, and how much people stand out in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from magicfuse_training.data.scenes import PERSON, read_boxes

U8 = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


def people(folder: Path, kind: str, stem: str, shape: tuple[int, ...]) -> list[Box]:
    """Return the person boxes of one kind, clipped to the image, as x0, y0, x1, y1."""
    boxes = read_boxes(folder / f"boxes_{kind}" / f"{stem}.txt", shape[0], shape[1], [PERSON])
    clipped = boxes.round().clip(0, [shape[1], shape[0], shape[1], shape[0]]).astype(int)
    return [(b[0], b[1], b[2], b[3]) for b in clipped.tolist() if b[2] > b[0] and b[3] > b[1]]


def area(box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of a box."""
    return slice(box[1], box[3]), slice(box[0], box[2])


def contrast(image: U8, box: Box, people: list[Box]) -> float | None:
    """Return mean inside the box minus mean of a ring around it; None without such a ring.

    The ring holds no other person; values 0 to 255.
    """
    x0, y0, x1, y1 = box
    dx, dy = max((x1 - x0) // 2, 4), max((y1 - y0) // 2, 4)
    ring = np.zeros(image.shape, bool)
    ring[max(y0 - dy, 0) : y1 + dy, max(x0 - dx, 0) : x1 + dx] = True
    for other in people:
        ring[area(other)] = False
    if not ring.any():
        return None
    return float(image[area(box)].mean() - image[ring].mean())
