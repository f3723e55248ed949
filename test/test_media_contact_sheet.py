# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.contact_sheet import SHEET_ROWS, EvenSample, contact_sheet
from magicfuse_ros.media.panels import PANEL_TITLES, PanelPage, panel_height, scale_to
from media_files import picture

LEGEND = [("road", (128, 64, 128)), ("person", (220, 20, 60))]


def plain(color: tuple[int, int, int], height: int = 48, width: int = 64) -> Pixels:
    return np.full((height, width, 3), color, np.uint8)


def boxes(page: Pixels, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The bounding box (top, left, height, width) of the pixels of exactly this colour."""
    y, x = np.nonzero((page == color).all(axis=2))
    assert y.size, f"{color} is not on the page"
    return int(y.min()), int(x.min()), int(np.ptp(y)) + 1, int(np.ptp(x)) + 1


def test_titles_name_the_thermal_image_an_estimate() -> None:
    assert PANEL_TITLES[2] == "Thermal estimate"
    assert len(PANEL_TITLES) == 5


def test_images_lie_in_equal_cells_in_rows_and_columns() -> None:
    colors = [[(200, 10 * r, 10 * c) for c in range(5)] for r in range(3)]
    rows = [(f"frame {r}", [plain(c) for c in row]) for r, row in enumerate(colors)]
    sheet = contact_sheet(rows, legend=LEGEND)
    found = [[boxes(sheet, color) for color in row] for row in colors]
    assert {box[2:] for row in found for box in row} == {(240, 320)}
    for row in found:
        assert len({top for top, *_ in row}) == 1
    for column in zip(*found, strict=True):
        assert len({left for _, left, *_ in column}) == 1
    lefts = [left for _, left, *_ in found[0]]
    assert len(set(np.diff(lefts).tolist())) == 1 and lefts[1] - lefts[0] > 320


def test_text_and_legend_are_drawn_around_the_cells_only() -> None:
    images = [plain((0, 0, 0))] * 5
    rows = [("first", images), ("second", images)]
    bare = contact_sheet([("", images), ("", images)], [""] * 5)
    full = contact_sheet(rows, legend=LEGEND, heading="magicfuse")
    assert full.shape[1] == bare.shape[1] and full.shape[0] > bare.shape[0]
    assert (bare <= 31).all()
    assert (full > 200).all(axis=2).any()
    for _, color in LEGEND:
        top, _, height, width = boxes(full, color)
        assert top > full.shape[0] * 0.9 and 8 < height == width < 24


def test_images_keep_their_aspect_ratio() -> None:
    wide, tall, gray = plain((250, 0, 0), 20, 90), plain((0, 250, 0), 90, 20), picture()[..., 0]
    page = PanelPage(["a", "b", "c"], (120, 60)).render([[wide, tall, gray]])
    top, left, *size = boxes(page, (250, 0, 0))
    assert size == [27, 120]
    tall_top, tall_left, *tall_size = boxes(page, (0, 250, 0))
    assert tall_size == [60, 13]
    assert top - tall_top == (60 - 27) // 2  # both are centred in their cells
    assert tall_left - left > 120


def test_a_long_title_is_cut_to_its_panel() -> None:
    page = PanelPage(["W" * 60, ""], (100, 50)).render([[plain((0, 0, 0))] * 2])
    bright = np.nonzero((page > 150).all(axis=2).any(axis=0))[0]
    assert 60 < bright.max() < 110


def test_a_long_legend_takes_more_lines() -> None:
    legend = [(f"a rather long class name {i}", (10 * i, 255, 0)) for i in range(20)]
    short = PanelPage(["a"], (320, 240), legend=legend[:1]).size
    long = PanelPage(["a"], (320, 240), legend=legend)
    assert long.size[0] == short[0] and long.size[1] > short[1] + 150
    page = long.render([[plain((0, 0, 0))]])
    for _, color in legend:
        boxes(page, color)


def test_wrong_numbers_of_images_are_an_error() -> None:
    for rows in ([], [("a", [picture()] * 4)], [("a", [picture()] * 5), ("b", [])]):
        with pytest.raises(ValueError, match=r"row|shorter"):
            contact_sheet(rows)


@pytest.mark.parametrize(("shape", "height"), [((3000, 2), 640), ((1, 500), 80), ((3, 4), 240)])
def test_a_strip_does_not_make_a_giant_page(shape: tuple[int, int], height: int) -> None:
    assert panel_height(plain((0, 0, 0), *shape), 320) == height


def test_a_page_can_be_rendered_again() -> None:
    page = PanelPage(["a"], (64, 48))
    first = page.render([[plain((9, 9, 9))]])
    wide = page.render([[plain((200, 200, 200), 10, 90)]])
    assert boxes(wide, (200, 200, 200))[2:] == (7, 64)
    tall = page.render([[plain((9, 9, 9), 90, 10)]])
    assert not (tall == 200).any()
    assert first.shape[:2][::-1] == page.size


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 50), st.integers(1, 50))
def test_scaled_images_fit(height: int, width: int, room_x: int, room_y: int) -> None:
    small = scale_to(plain((1, 2, 3), height, width), room_x, room_y)
    assert small.shape[0] <= room_y and small.shape[1] <= room_x
    assert small.shape[0] == room_y or small.shape[1] == room_x


@given(st.integers(0, 500), st.integers(1, 12))
def test_even_samples(count: int, size: int) -> None:
    made = []
    sample: EvenSample[int] = EvenSample(size)
    for i in range(count):

        def make(i: int = i) -> int:
            made.append(i)
            return i

        sample.offer(make)
    items = sample.items()
    assert len(items) == min(count, size)
    assert len(made) <= 2 * size * (1 + np.log2(1 + count / size))
    assert items == sorted(set(items))
    if count:
        assert items[0] == 0
    if count > size > 1:
        steps = np.diff(items)
        assert steps.max() <= 2 * steps.min()
        assert items[-1] >= count * (size - 1) // (size * 2) - 1


def test_a_sheet_of_a_long_video_covers_it() -> None:
    sample: EvenSample[int] = EvenSample()
    for number in range(250):
        sample.offer(partial(int, number))
    assert len(sample.items()) == SHEET_ROWS
    assert sample.items()[-1] > 200
