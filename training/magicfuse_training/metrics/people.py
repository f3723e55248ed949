# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Person boxes drawn by hand, and the contrast of the people in them."""

from __future__ import annotations

import numpy as np

from magicfuse_training.arrays import F32, U8
from magicfuse_training.data.layout import DataSet, Record
from magicfuse_training.data.scenes import people_in

Box = tuple[int, int, int, int]


def boxes_of(
    data: DataSet, record: Record, shape: tuple[int, int]
) -> tuple[list[Box] | None, list[Box]]:
    """Return the person boxes of a scene: those of its thermal image, and all others too.

    They are clipped to the image's `shape` (H, W), as x0, y0, x1, y1.
    Boxes of the scene's other images are in neighbouring `boxes_*` folders. Return None for a scene
    without boxes, or without a thermal image.
    """
    if record.boxes is None or record.thermal is None:
        return None, []
    siblings = record.boxes.parent.parent.glob(f"boxes_*/{record.boxes.name}")
    files = sorted({record.boxes, *siblings})
    found = {file: _clipped(people_in(file, data.boxes, *shape), shape) for file in files}
    return found[record.boxes], [box for boxes in found.values() for box in boxes]


def _clipped(boxes: F32, shape: tuple[int, ...]) -> list[Box]:
    clipped = boxes.round().clip(0, [shape[1], shape[0], shape[1], shape[0]]).astype(int)
    return [(b[0], b[1], b[2], b[3]) for b in clipped.tolist() if b[2] > b[0] and b[3] > b[1]]


def area(box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of a box."""
    return slice(box[1], box[3]), slice(box[0], box[2])


def contrast(image: U8, box: Box, people: list[Box]) -> float | None:
    """Return the mean inside the box minus the mean of a ring around it; None without such a ring.

    The ring contains no other person; values 0 to 255.
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
