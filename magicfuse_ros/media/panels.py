# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A dark page of equal panels with titles: the layout of contact sheets and videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from magicfuse_ros.image_codec import Pixels

Color = tuple[int, int, int]
PANEL_TITLES: tuple[str, ...] = (
    "Camera",
    "Restored",
    "Thermal estimate",
    "MagImg",
    "Segmentation",
)

_PAGE: Color = (24, 26, 31)
_CELL: Color = (12, 13, 16)
_BRIGHT: Color = (236, 238, 242)
_DIM: Color = (150, 156, 168)


class PanelPage:
    """Rows of panels under column titles, with an optional heading, row labels and class legend.

    All sizes follow from the panel size; text that does not fit is cut with an ellipsis.
    """

    def __init__(
        self,
        titles: Sequence[str],
        panel_size: tuple[int, int],
        *,
        row_labels: Sequence[str] = ("",),
        legend: Sequence[tuple[str, Color]] = (),
        heading: str = "",
    ) -> None:
        """Lay the page out and draw everything but the images.

        Args:
            titles: one per column.
            panel_size: width and height of a panel in pixels.
            row_labels: one per row, drawn above it; an empty label takes no room.
            legend: names and RGB colours, drawn at the bottom.
            heading: drawn at the top.
        """
        self.columns = len(titles)
        self._panel_size = panel_size
        panel_width, panel_height = panel_size
        text = max(11, panel_width // 22)
        gap, margin, line = max(2, panel_width // 64), max(8, panel_width // 20), round(text * 1.7)
        self._width = 2 * margin + self.columns * (panel_width + gap) - gap
        room = self._width - 2 * margin

        self._left = [margin + i * (panel_width + gap) for i in range(self.columns)]
        y = margin
        if heading:
            y += round(line * 1.5)
        title_y = y
        y += line
        label_y, self._top = [], []
        for label in row_labels:
            label_y.append(y)
            y += line if label else 0
            self._top.append(y)
            y += panel_height + gap
        legend_y = y - gap + (margin if legend else 0)
        lines = _flow(legend, text, room)
        self._height = legend_y + line * len(lines) + (margin // 2 if legend else margin)

        page = PillowImage.new("RGB", self.size, _PAGE)
        draw = ImageDraw.Draw(page)
        if heading:
            _text(draw, (margin, margin), heading, round(text * 1.3), _BRIGHT, room)
        for x, title in zip(self._left, titles, strict=True):
            _text(draw, (x, title_y), title, text, _BRIGHT, panel_width)
        for y, label in zip(label_y, row_labels, strict=True):
            _text(draw, (margin, y + line // 8), label, text, _DIM, room)
        for row, entries in enumerate(lines):
            for x, name, color in entries:
                x, y = x + margin, legend_y + row * line
                box = (x, y, x + text, y + text)
                draw.rounded_rectangle(box, text // 4, fill=color, outline=_DIM)
                _text(draw, (x + round(text * 1.4), y), name, text, _DIM, room)
        for y in self._top:
            for x in self._left:
                draw.rectangle((x, y, x + panel_width - 1, y + panel_height - 1), fill=_CELL)
        self._page: Pixels = np.array(page, dtype=np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the page in pixels."""
        return self._width, self._height

    def render(self, rows: Sequence[Sequence[Pixels]]) -> Pixels:
        """Return the page with images in it, RGB, HxWx3 uint8.

        Args:
            rows: for each row label, one image per column: RGB HxWx3 or gray HxW, uint8, of any
                size; each is scaled to its panel and keeps its aspect ratio.

        Raises:
            ValueError: if the number of rows or of images in a row does not fit the page.
        """
        page: Pixels = self._page.copy()
        width, height = self._panel_size
        for y, images in zip(self._top, rows, strict=True):
            for x, image in zip(self._left, images, strict=True):
                small = scale_to(image, width, height)
                h, w = small.shape[:2]
                top, left = y + (height - h) // 2, x + (width - w) // 2
                page[top : top + h, left : left + w] = small
        return page


def panel_height(image: Pixels, width: int) -> int:
    """Return the height of a panel of the given width with the aspect ratio of `image`.

    It stays between a quarter of the width and twice the width, so that a strip does not make a
    giant page.
    """
    rows, columns = image.shape[:2]
    return min(2 * width, max(width // 4, round(width * int(rows) / int(columns))))


def scale_to(image: Pixels, width: int, height: int) -> Pixels:
    """Return an RGB or gray image as RGB, scaled to fit width x height; keep its aspect ratio."""
    if image.ndim == 2:
        image = np.repeat(image[..., np.newaxis], 3, axis=2)
    scale = min(width / image.shape[1], height / image.shape[0])
    size = tuple(
        min(limit, max(1, round(scale * side)))
        for limit, side in ((width, image.shape[1]), (height, image.shape[0]))
    )
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(
    draw: ImageDraw.ImageDraw,
    position: tuple[int, int],
    text: str,
    size: int,
    color: Color,
    room: int,
) -> None:
    font = _font(size)
    shown = text
    while len(shown) > 1 and font.getlength(shown) > room:
        shown = f"{shown[:-2]}…"
    draw.text(position, shown, fill=color, font=font)


def _flow(
    legend: Sequence[tuple[str, Color]], text: int, room: int
) -> list[list[tuple[int, str, Color]]]:
    """Break legend entries into lines; return the (x, name, colour) of each entry."""
    lines: list[list[tuple[int, str, Color]]] = []
    x = room + 1
    for name, color in legend:
        width = round(text * 3.0 + _font(text).getlength(name))
        if x + width > room:
            lines.append([])
            x = 0
        lines[-1].append((x, name, color))
        x += width
    return lines
