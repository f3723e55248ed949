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

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magicfuse_ros.geometry import FITS, Fit, Geometry, Size

sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))
networks = st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda s: (8 * s[0], 8 * s[1]))
fits = st.sampled_from(FITS)


def ramps(size: Size) -> npt.NDArray[np.uint8]:
    """Red rises by 200 from left to right, green from top to bottom; blue is constant."""
    rows, columns = ((np.arange(n) + 0.5) / n * 200 + 20 for n in size)
    image = np.empty((*size, 3))
    image[..., 0], image[..., 1], image[..., 2] = columns[None], rows[:, None], 77
    return np.rint(image).astype(np.uint8)


def content(geometry: Geometry, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    rows, columns = geometry.content
    return image[geometry.top : geometry.top + rows, geometry.left : geometry.left + columns]


@given(sizes, networks, fits)
def test_any_size_goes_in_and_comes_back(source: Size, network: Size, fit: Fit) -> None:
    geometry = Geometry.fit(source, network, fit)
    inside = geometry.forward(ramps(source))
    assert inside.shape == (*network, 3) and inside.dtype == np.uint8
    assert inside.flags.c_contiguous
    for image in (inside, inside[..., 0]):
        back = geometry.image_back(np.ascontiguousarray(image))
        assert back.shape == (*source, *image.shape[2:]) and back.dtype == np.uint8
        assert back.flags.c_contiguous
    assert geometry.labels_back(np.zeros(network, np.uint8)).shape == source


@given(sizes, networks, fits)
def test_every_place_comes_back_to_where_it_was(source: Size, network: Size, fit: Fit) -> None:
    geometry = Geometry.fit(source, network, fit)
    image = ramps(source)
    back = geometry.image_back(geometry.forward(image)).astype(float)
    for channel, axis in ((0, 1), (1, 0)):
        pixel = 200 / min(source[axis], geometry.content[axis])
        error = np.abs(back[..., channel] - image[..., channel]).max()
        assert error <= 0.5 * pixel + 2, "resizing clamps half a pixel at the borders"
    assert (back[..., 2] == 77).all()


@given(sizes, networks)
def test_letterbox_keeps_the_shape_and_fills_one_direction(source: Size, network: Size) -> None:
    geometry = Geometry.fit(source, network, "letterbox")
    rows, columns = geometry.content
    assert rows == network[0] or columns == network[1]
    scale = min(network[0] / source[0], network[1] / source[1])
    assert abs(rows - source[0] * scale) < 1 and abs(columns - source[1] * scale) < 1
    spare = (network[0] - rows, network[1] - columns)
    assert (geometry.top, geometry.left) == (spare[0] // 2, spare[1] // 2)


@given(sizes, networks)
def test_pads_mirror_the_image(source: Size, network: Size) -> None:
    geometry = Geometry.fit(source, network, "letterbox")
    inside = geometry.forward(ramps(source))
    rows, columns = geometry.content
    pads = (
        (geometry.top, network[0] - rows - geometry.top),
        (geometry.left, network[1] - columns - geometry.left),
        (0, 0),
    )
    np.testing.assert_array_equal(inside, np.pad(content(geometry, inside), pads, mode="reflect"))


@given(sizes, networks)
def test_stretch_fills_the_network_image(source: Size, network: Size) -> None:
    geometry = Geometry.fit(source, network, "stretch")
    assert geometry.content == network and (geometry.top, geometry.left) == (0, 0)


@given(sizes, networks, fits)
def test_labels_come_from_the_nearest_pixel(source: Size, network: Size, fit: Fit) -> None:
    geometry = Geometry.fit(source, network, fit)
    labels = np.random.default_rng(0).integers(0, 256, network, np.uint8)
    inside = content(geometry, labels)
    back = geometry.labels_back(labels)
    # The centre of a source pixel, in pixels of the network's image; on a tie, either side is right
    at = [(np.arange(n) + 0.5) * m / n for n, m in zip(source, geometry.content, strict=True)]
    low, high = ([np.floor(a + e).astype(int) for a in at] for e in (-1e-3, 1e-3))
    low = [np.maximum(a, 0) for a in low]
    high = [np.minimum(a, m - 1) for a, m in zip(high, geometry.content, strict=True)]
    candidates = [inside[np.ix_(r, c)] for r in (low[0], high[0]) for c in (low[1], high[1])]
    assert np.logical_or.reduce([back == c for c in candidates]).all()


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_right_size_is_passed_on(fit: Fit) -> None:
    geometry = Geometry.fit((64, 96), (64, 96), fit)
    image = ramps((64, 96))
    assert geometry.forward(image) is image
    np.testing.assert_array_equal(geometry.image_back(image), image)
    flipped = image[::-1]
    assert geometry.forward(flipped).flags.c_contiguous


@pytest.mark.parametrize("source", [(1, 5000), (5000, 1), (1, 1), (3, 2000)])
def test_pads_larger_than_the_image(source: Size) -> None:
    geometry = Geometry.fit(source, (480, 640), "letterbox")
    assert geometry.forward(ramps(source)).shape == (480, 640, 3)
    assert geometry.labels_back(np.zeros((480, 640), np.uint8)).shape == source
