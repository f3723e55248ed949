# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A contact sheet: one picture with a few frames as rows and their images as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.panels import PANEL_TITLES, Color, PanelPage, panel_height

SHEET_ROWS = 8
PANEL_WIDTH = 320

T = TypeVar("T")


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Pixels]]],
    titles: Sequence[str] = PANEL_TITLES,
    *,
    legend: Sequence[tuple[str, Color]] = (),
    heading: str = "",
) -> Pixels:
    """Draw a contact sheet.

    Args:
        rows: for each row, a label and one image per title: RGB HxWx3 or gray HxW, uint8, of any
            size. The panels have the aspect ratio of the very first image.
        titles: column titles.
        legend: class names and RGB colours, drawn underneath.
        heading: drawn above the titles.

    Returns:
        RGB, HxWx3 uint8.

    Raises:
        ValueError: if there are no rows, or a row does not have an image for every title.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    page = PanelPage(
        titles,
        (PANEL_WIDTH, panel_height(rows[0][1][0], PANEL_WIDTH)),
        row_labels=[label for label, _ in rows],
        legend=legend,
        heading=heading,
    )
    return page.render([images for _, images in rows])


class EvenSample(Generic[T]):
    """Keeps a few evenly spaced items of a sequence of unknown length."""

    def __init__(self, size: int = SHEET_ROWS) -> None:
        """Keep `size` items in the end, and fewer than twice as many until then."""
        self._size = size
        self._kept: list[T] = []
        self._stride = 1
        self._offered = 0

    def offer(self, make: Callable[[], T]) -> None:
        """Count an item; `make` is called only if it is to be kept."""
        if self._offered % self._stride == 0:
            self._kept.append(make())
            if len(self._kept) == 2 * self._size:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._offered += 1

    def items(self) -> list[T]:
        """Return the items: all of a short sequence, else `size` items including the first."""
        count = len(self._kept)
        if count <= self._size:
            return list(self._kept)
        if self._size == 1:
            return self._kept[:1]
        last = count - 1
        return [self._kept[round(i * last / (self._size - 1))] for i in range(self._size)]
