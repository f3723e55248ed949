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

import random
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.input_checks import FROZEN, SOFTNESS_EVERY_S, WINDOW_S, InputChecks

VISIBLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "msrs" / "train" / "vi"


def street(seed: int = 0, size: tuple[int, int] = (480, 640)) -> Pixels:
    """Return a scene of surfaces with edges and a little texture, like a camera image."""
    numbers = np.random.default_rng(seed)
    rows, columns = size
    scene = np.full((rows, columns), 120, np.float32)
    for _ in range(60):
        top, left = numbers.integers(rows), numbers.integers(columns)
        height, width = numbers.integers(10, rows // 2), numbers.integers(10, columns // 3)
        scene[top : top + height, left : left + width] = numbers.uniform(20, 220)
    scene += numbers.normal(0, 6, size)
    scene = cv2.GaussianBlur(scene, (0, 0), 0.7)  # lens blur
    return np.repeat(np.clip(scene, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def night(seed: int, mean: float) -> Pixels:
    """Return the scene with the light scaled to a share of full scale, with noise and a lamp."""
    numbers = np.random.default_rng(seed)
    scene = street(seed).astype(np.float32)
    scene *= 255 * mean / scene.mean()
    scene[100:112, 300:312] = 240
    return np.clip(scene + numbers.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)


def warnings(images: list[Pixels]) -> str:
    checks = InputChecks()
    for number, image in enumerate(images):
        checks.add(image, number / 30)
    return "; ".join(checks.warnings(len(images) / 30))


def test_a_sound_camera_causes_no_warning() -> None:
    assert warnings([street(seed) for seed in range(4)]) == ""


@pytest.mark.parametrize("mean", [0.03, 0.05, 0.1])
def test_a_dark_night_is_not_black(mean: float) -> None:
    assert warnings([night(seed, mean) for seed in range(4)]) == ""


@pytest.mark.parametrize("light", ["N", "D"])
def test_real_road_images_cause_no_warning(light: str) -> None:
    files = sorted(VISIBLE.glob(f"*{light}.*"))
    if not files:
        pytest.skip(f"{VISIBLE} is not there")
    checks = InputChecks()
    for second, path in enumerate(random.Random(1).sample(files, 40)):
        image = np.asarray(cv2.imread(str(path)), np.uint8)
        faults = checks.add(image, second).faults()
        assert not faults, (path.name, faults)
        soft = np.asarray(cv2.GaussianBlur(image, (0, 0), 5), np.uint8)
        blurred = checks.add(soft, second + SOFTNESS_EVERY_S)
        assert set(blurred.faults()) <= {"blurred"}


def test_each_fault_is_named_with_its_figure() -> None:
    numbers = np.random.default_rng(0)
    covered = [numbers.integers(0, 8, (480, 640, 3)).astype(np.uint8) for _ in range(3)]
    assert warnings(covered) == "images are black (brightest gray level 7 of 255)"
    glare = [np.minimum(street(seed).astype(int) * 4, 255).astype(np.uint8) for seed in range(3)]
    assert "images are saturated (" in warnings(glare)
    soft = [cv2.GaussianBlur(street(seed), (0, 0), 4) for seed in range(3)]
    assert "images are blurred (softness 1" in warnings(soft)


def test_softness_is_measured_every_half_second() -> None:
    checks = InputChecks()
    sharp = checks.add(street(), 0.0).softness
    soft = np.asarray(cv2.GaussianBlur(street(), (0, 0), 4), np.uint8)
    assert checks.add(soft, 0.9 * SOFTNESS_EVERY_S).softness == sharp
    assert "blurred" in checks.add(soft, SOFTNESS_EVERY_S).faults()


def test_an_image_that_stands_still_is_frozen() -> None:
    still = [street()] * (FROZEN + 1)
    assert "images are frozen (the same image 11 times)" in warnings(still)
    assert warnings(still[:-1]) == ""
    assert warnings([*still, street(1)]) == ""
    checks = InputChecks()
    for number, image in enumerate(still):
        checks.add(image, number / 10)
    assert not checks.warnings(1.0, frozen=False), "a simulated camera has no noise"
    noise = np.random.default_rng(0).normal(0, 2, (30, 480, 640, 1))
    standing = [np.clip(street() + n, 0, 255).astype(np.uint8) for n in noise]
    assert warnings(standing) == ""


def test_a_moment_of_glare_is_no_warning_and_old_images_are_forgotten() -> None:
    white = np.full((480, 640, 3), 255, np.uint8)
    assert warnings([street(seed) for seed in range(6)] + [white] * 3) == ""
    checks = InputChecks()
    checks.add(white, 0.0)
    assert checks.warnings(0.0)
    assert not checks.warnings(WINDOW_S + 1)
    assert checks.latest(WINDOW_S + 1) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (47, 47), (120, 120), (121, 500)])
def test_any_size_is_measured(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    measures = InputChecks().add(image, 0.0)
    assert 0 <= measures.mean <= 255 and 0 <= measures.brightest <= 255
    assert 0 <= measures.saturated <= 1


def test_large_images_are_quick() -> None:
    checks = InputChecks()
    image = street(size=(1080, 1920))
    times = []
    for number in range(30):
        start = time.perf_counter()
        checks.add(image, number / 30)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.01  # under 1 ms on a quiet machine
