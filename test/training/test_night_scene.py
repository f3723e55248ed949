# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Nights rendered from labelled days."""

import numpy as np
import pytest

from magicfuse_training.arrays import F64, U8
from magicfuse_training.data.classes import (
    BUILDING,
    CAR,
    IGNORE,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
)
from magicfuse_training.data.night_scene import render_night

DRAWS = 40
COLORS = {
    SKY: (205, 215, 230),
    BUILDING: (130, 120, 110),
    POLE: (90, 90, 90),
    ROAD: (100, 100, 105),
    TREE: (60, 90, 50),
    SIGN: (40, 60, 160),
    CAR: (90, 95, 100),
    PEDESTRIAN: (80, 60, 60),
}


def street(height: int = 128, width: int = 160) -> tuple[U8, U8]:
    """Return a day and its label: sky, a house, a tree, a pole, a sign, two cars, one person."""
    label = np.full((height, width), ROAD, np.uint8)
    y, x = height / 128, width / 160

    def put(what: int, top: int, left: int, bottom: int, right: int) -> None:
        label[round(top * y) : round(bottom * y), round(left * x) : round(right * x)] = what

    put(SKY, 0, 0, 58, 160)
    put(BUILDING, 15, 0, 65, 60)
    put(TREE, 25, 110, 62, 160)
    put(POLE, 10, 100, 62, 102)
    put(SIGN, 30, 98, 44, 104)
    put(CAR, 56, 64, 80, 94)
    put(CAR, 56, 116, 78, 144)
    put(PEDESTRIAN, 50, 20, 96, 36)
    day = np.zeros((height, width, 3), np.uint8)
    for what, color in COLORS.items():
        day[label == what] = color
    noise = np.random.default_rng(0).integers(-12, 13, day.shape)
    return np.clip(day + noise, 0, 255).astype(np.uint8), label


def luma(image: U8) -> F64:
    return image.astype(np.float64) @ (0.299, 0.587, 0.114)


@pytest.fixture(scope="module")
def nights() -> list[U8]:
    day, label = street()
    return [render_night(day, label, np.random.default_rng(i))[0] for i in range(DRAWS)]


@pytest.mark.parametrize("size", [(128, 160), (97, 131), (16, 24), (240, 64)])
def test_two_images_of_the_size_of_the_day_and_the_inputs_stay(size: tuple[int, int]) -> None:
    day, label = street(*size)
    before = day.copy(), label.copy()
    for image in render_night(day, label, np.random.default_rng(1)):
        assert image.shape == day.shape
        assert image.dtype == np.uint8
    assert np.array_equal(day, before[0])
    assert np.array_equal(label, before[1])


def test_a_mirrored_view_is_rendered_as_its_copy() -> None:
    day, label = street()
    day, label = day[:, ::-1], label[:, ::-1]
    some = render_night(day, label, np.random.default_rng(2))
    same = render_night(day.copy(), label.copy(), np.random.default_rng(2))
    assert all(np.array_equal(a, b) for a, b in zip(some, same, strict=True))


def test_one_seed_gives_one_night_and_another_seed_another() -> None:
    day, label = street()
    first, again, other = (render_night(day, label, np.random.default_rng(i)) for i in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_nights_are_dark_and_differ_in_brightness(nights: list[U8]) -> None:
    means = np.array([luma(night).mean() for night in nights])
    assert means.max() < 0.7 * luma(street()[0]).mean()
    assert np.percentile(means, 90) > 2 * np.percentile(means, 10)


def test_the_sky_that_was_brightest_is_dark(nights: list[U8]) -> None:
    day, label = street()
    sky, road = label == SKY, label == ROAD
    assert luma(day)[sky].mean() > 1.8 * luma(day)[road].mean()
    levels = np.array([np.median(luma(night)[sky]) for night in nights])
    roads = np.array([np.median(luma(night)[road]) for night in nights])
    assert np.mean(levels < 40) > 0.8
    assert np.mean(levels < roads) > 0.6


def test_lamps_shine(nights: list[U8]) -> None:
    assert np.mean([night.max() > 250 for night in nights]) > 0.7


def test_cars_have_red_and_white_lights_sometimes(nights: list[U8]) -> None:
    cars = [night[street()[1] == CAR].astype(int) for night in nights]
    red = [((c[:, 0] > 150) & (c[:, 0] > 1.7 * c[:, 1])).any() for c in cars]
    white = [(c.min(1) > 230).any() for c in cars]
    assert 0.1 < np.mean(red) < 1
    assert 0.1 < np.mean(white) < 1


def test_people_do_not_glow_and_keep_their_texture() -> None:
    day, label = street()
    person = label == PEDESTRIAN
    stripes = person & (np.arange(128)[:, None] // 4 % 2 == 0)
    day[stripes] = (190, 170, 170)
    nights = [render_night(day, label, np.random.default_rng(i))[0] for i in range(DRAWS)]
    brighter = [luma(n)[stripes].mean() - luma(n)[person & ~stripes].mean() for n in nights]
    assert np.mean(np.array(brighter) > 1) > 0.8
    assert np.mean([luma(n)[person].mean() < luma(day)[person].mean() for n in nights]) > 0.9


def test_the_target_is_the_day_under_a_dim_smooth_sky() -> None:
    day, label = street()
    target = render_night(day, label, np.random.default_rng(5))[1]
    ground = np.isin(label, (ROAD, CAR, BUILDING))
    assert np.mean(np.abs(target.astype(int) - day)[ground] > 2) < 0.03
    inner = target[:12, 5:90]
    assert 0.25 < luma(inner).mean() / 255 < 0.45
    assert luma(inner).std(1).max() < 1
    again = render_night(day, label, np.random.default_rng(6))[1]
    assert np.array_equal(target, again)  # lamps and exposure leave no trace


def test_sky_between_leaves_is_sky() -> None:
    day, label = street()
    gaps = np.zeros(label.shape, bool)
    gaps[30:50:6, 120:155:6] = True
    day[gaps] = COLORS[SKY]
    night, target = render_night(day, label, np.random.default_rng(7))
    assert luma(target)[gaps].max() < 0.5 * luma(day)[gaps].min()
    assert luma(night)[gaps].mean() < 0.5 * luma(day)[gaps].mean()


@pytest.mark.parametrize("known", ["nothing", "people", "upper half"])
def test_labels_may_be_unknown(known: str) -> None:
    day, label = street()
    full = label.copy()
    label[:] = IGNORE
    if known == "people":
        label[full == PEDESTRIAN] = PEDESTRIAN
    if known == "upper half":
        label[:64] = full[:64]
    for i in range(8):
        night, target = render_night(day, label, np.random.default_rng(i))
        assert luma(night).mean() < 0.7 * luma(day).mean()
        assert np.mean(target[100:] == day[100:]) == 1
    if known != "people":
        assert luma(night)[:12].mean() < 60


@pytest.mark.parametrize("what", [SKY, ROAD, BUILDING, CAR, 254])
@pytest.mark.parametrize("level", [0, 255])
def test_images_of_one_thing_work(what: int, level: int) -> None:
    day = np.full((64, 80, 3), level, np.uint8)
    with np.errstate(all="raise", under="ignore"):
        for i in range(5):
            night, _ = render_night(
                day, np.full((64, 80), what, np.uint8), np.random.default_rng(i)
            )
            assert night.mean() < 180
