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

import tracemalloc

import numpy as np
import pytest

from magicfuse_ros.bundle import UNLABELED, SemanticClass
from magicfuse_ros.errors import FrameError
from magicfuse_ros.overlay import legend, overlay, with_legend
from tiny_bundle import CLASSES

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
MASK = np.random.default_rng(1).integers(0, 3, (6, 8), np.uint8)
COLORS = np.array([c.color for c in CLASSES])


def eleven() -> list[SemanticClass]:
    return [
        SemanticClass(
            id=i, name=f"class {i}", color=(20 * i, 250 - 20 * i, 99), thermal=False, drivable=False
        )
        for i in range(11)
    ]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_colours_are_blended_by_alpha(alpha: float) -> None:
    before = IMAGE.copy()
    expected = (1 - alpha) * IMAGE + alpha * COLORS[MASK]
    blended = overlay(IMAGE, MASK, CLASSES, alpha)
    assert blended.dtype == np.uint8
    np.testing.assert_allclose(blended, expected, atol=0.51)
    np.testing.assert_array_equal(IMAGE, before)


def test_pixels_without_a_class_stay_as_they_are() -> None:
    mask = MASK.copy()
    mask[0], mask[1] = UNLABELED, 3
    blended = overlay(IMAGE, mask, CLASSES, alpha=1)
    np.testing.assert_array_equal(blended[:2], IMAGE[:2])
    np.testing.assert_array_equal(blended[2:], COLORS[MASK[2:]])


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(FrameError, match=r"mask has shape \(5, 8\); expected the image's \(6, 8\)"):
        overlay(IMAGE, MASK[:5], CLASSES)


@pytest.mark.parametrize("width", [160, 640, 1920])
def test_legend_shows_every_class_once(width: int) -> None:
    classes = eleven()
    strip = legend(classes, width)
    assert strip.shape[1:] == (width, 3) and strip.dtype == np.uint8
    areas = [int((strip == c.color).all(axis=2).sum()) for c in classes]
    assert len(set(areas)) == 1 and areas[0] > 50
    letters = (strip == strip[..., :1]).all(axis=2) & (strip[..., 0] > 100)
    assert letters.sum() > 11 * 40, "names are written"
    assert not letters[:, -2:].any(), "names end before the border"


def test_legend_wraps_only_where_it_must() -> None:
    assert legend(CLASSES, 640).shape[0] < legend(CLASSES, 100).shape[0]


@pytest.mark.parametrize(("height", "width"), [(272, 640), (480, 640), (1080, 1920)])
def test_the_legend_lies_over_the_upper_border(height: int, width: int) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    drawn = with_legend(image.copy(), eleven())
    assert drawn.shape == image.shape
    rows = np.flatnonzero((drawn != image).any(axis=(1, 2)))
    assert rows[0] == 0 and 20 * width / 640 <= rows[-1] <= height / 4
    # the strip is as large as in an image of 640 columns, so that it stays readable
    assert rows[-1] + 1 == pytest.approx(legend(eleven(), 640).shape[0] * width / 640, abs=1)
    # the background stays visible
    other = with_legend(np.zeros_like(image), eleven())
    assert (drawn[rows].astype(int) - other[rows]).min() > 20


def test_a_small_image_has_no_legend() -> None:
    np.testing.assert_array_equal(with_legend(IMAGE.copy(), CLASSES), IMAGE)


def test_an_extremely_wide_image_has_no_legend_and_takes_no_memory() -> None:
    image = np.zeros((1, 200_000, 3), np.uint8)
    tracemalloc.start()
    drawn = with_legend(image, eleven())
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not drawn.any() and used < 1_000_000  # a legend of this width has 8 GB
