# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The camera and weather model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.linear_light import to_linear, to_srgb
from magicfuse_training.degradations import (
    DEGRADATIONS,
    Darkness,
    DefocusBlur,
    Effect,
    Fog,
    Haze,
    Jpeg,
    MotionBlur,
    Rain,
    apply,
    degrade,
    draw,
)

KINDS = st.one_of(
    st.sampled_from(DEGRADATIONS),
    st.lists(st.sampled_from(DEGRADATIONS[1:]), min_size=2, max_size=4, unique=True).map("+".join),
)


def scene() -> Pixels:
    """Return a smooth bright image with edges."""
    row = np.linspace(60, 220, 96, dtype=np.float32)
    image = np.repeat(np.repeat(row[None], 64, 0)[..., None], 3, 2).astype(np.uint8)
    image[20:40, 30:50] = (200, 40, 40)
    return image


def stripes() -> Pixels:
    """Return black and white columns."""
    image = np.zeros((100, 64, 3), np.uint8)
    image[:, ::2] = 255
    return image


def contrast(image: Pixels) -> float:
    """Return the mean difference of neighbouring columns."""
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


def with_effect(effect: Effect, image: Pixels) -> Pixels:
    return effect.apply(image, np.random.default_rng(0))


def mean_over_draws(kind: str, strength: float) -> float:
    draws = [degrade(scene(), kind, strength, np.random.default_rng(i)).mean() for i in range(20)]
    return float(np.mean(draws))


@settings(deadline=None, max_examples=60)
@given(KINDS, st.floats(0, 1), st.integers(0, 2**31), st.integers(8, 50), st.integers(8, 50))
def test_any_image_keeps_its_shape_and_the_input_is_not_touched(
    kind: str, strength: float, seed: int, h: int, w: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    before = image.copy()
    out = degrade(image, kind, strength, np.random.default_rng(seed))
    again = degrade(image, kind, strength, np.random.default_rng(seed))
    assert out.shape == image.shape and out.dtype == np.uint8 and out is not image
    assert np.array_equal(image, before) and np.array_equal(out, again)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(DEGRADATIONS[1:]), min_size=2, max_size=4, unique=True),
    st.integers(0, 2**31),
)
def test_a_combination_does_not_depend_on_the_order_of_its_names(
    kinds: list[str], seed: int
) -> None:
    one, other = (
        degrade(scene(), "+".join(names), 0.5, np.random.default_rng(seed))
        for names in (kinds, kinds[::-1])
    )
    assert np.array_equal(one, other)


def test_weather_comes_before_the_lens_the_lens_before_the_sensor_the_codec_last() -> None:
    effects: list[Effect] = [
        Jpeg(quality=30),
        Darkness(stops=2),
        MotionBlur(reach_px=3),
        Rain(rate_mm_h=50),
        Fog(visibility_m=60),
    ]
    step, rng = scene(), np.random.default_rng(3)
    for effect in effects[::-1]:
        step = effect.apply(step, rng)
    assert np.array_equal(apply(effects, scene(), np.random.default_rng(3)), step)


def test_parameters_by_hand_give_what_the_same_parameters_drawn_give() -> None:
    rng = np.random.default_rng(4)
    (dark,) = draw("dark", 0.5, rng)
    assert isinstance(dark, Darkness) and dark.stops == 4
    by_hand = Darkness.model_validate_json(dark.model_dump_json())
    drawn = degrade(scene(), "dark", 0.5, np.random.default_rng(4))
    assert np.array_equal(by_hand.apply(scene(), rng), drawn)


def test_every_code_survives_linear_light() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_srgb(to_linear(codes)), codes)


def test_more_darkness_is_darker_and_noisier_relative_to_its_signal() -> None:
    assert scene().mean() > mean_over_draws("dark", 0.0) > mean_over_draws("dark", 0.6)
    assert mean_over_draws("dark", 0.6) > mean_over_draws("dark", 1.0)
    flat = np.full((64, 64, 3), 128, np.uint8)
    dark = degrade(flat, "dark", 0.8, np.random.default_rng(0)).astype(float)
    assert (dark[1:] - dark[:-1]).std() > 1


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 6), st.floats(0.5, 3))
def test_each_stop_takes_light_and_gain_brings_it_back(stops: float, more: float) -> None:
    less = with_effect(Darkness(stops=stops + more), scene())
    assert less.mean() < with_effect(Darkness(stops=stops), scene()).mean()
    assert with_effect(Darkness(stops=stops + more, gain=4), scene()).mean() > less.mean()


def test_a_stop_halves_linear_light() -> None:
    flat = np.full((64, 64, 3), 128, np.uint8)
    dark = to_linear(with_effect(Darkness(stops=1, full_well=1e9), flat))
    assert dark.mean() == pytest.approx(to_linear(flat).mean() / 2, rel=0.01)


@pytest.mark.parametrize(("grain", "alike", "spread"), [(1.0, 0.0, 1.0), (1.6, 0.6, 0.65)])
def test_noise_of_a_sensor_with_fewer_pixels_is_coarser_and_averaged(
    grain: float, alike: float, spread: float
) -> None:
    flat = np.full((192, 192, 3), 128, np.uint8)
    noise = with_effect(Darkness(stops=0, read_noise=250, grain=grain), flat).astype(float)
    assert np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1] == pytest.approx(
        alike, abs=0.1
    )
    fine = with_effect(Darkness(stops=0, read_noise=250), flat).astype(float)
    assert noise.std() / fine.std() == pytest.approx(spread, abs=0.1)


def test_frames_of_a_video_share_their_light_and_differ_in_noise() -> None:
    sensor = np.random.default_rng(1)
    a, b = (
        degrade(scene(), "dark", 0.3, np.random.default_rng(7), sensor=sensor).astype(float)
        for _ in range(2)
    )
    other = degrade(scene(), "dark", 0.3, np.random.default_rng(8), sensor=sensor).astype(float)
    assert (a != b).any()
    blocks = [x.reshape(4, 16, 6, 16, 3).mean((1, 3)) for x in (a, b, other)]
    assert np.abs(blocks[0] - blocks[1]).max() < 3 < np.abs(blocks[0] - blocks[2]).max()


def test_frames_of_a_video_share_their_veil_and_differ_in_drops() -> None:
    sensor = np.random.default_rng(1)
    black = np.zeros((96, 128, 3), np.uint8)
    a, b = (
        degrade(black, "rain", 0.8, np.random.default_rng(7), sensor=sensor).astype(float)
        for _ in range(2)
    )
    assert (a != b).mean() > 0.05 and abs(a.mean() - b.mean()) < 2


@pytest.mark.parametrize("kind", ["haze", "fog"])
def test_haze_and_fog_take_contrast_most_at_the_horizon_and_little_nearby(kind: str) -> None:
    image = stripes()
    hazy = degrade(image, kind, 0.5, np.random.default_rng(0)).astype(float)
    by_row = np.abs(hazy[:, ::2] - hazy[:, 1::2]).mean((1, 2))
    assert by_row[35] < 0.6 * by_row[99]


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 5), st.floats(0.2, 3))
def test_denser_weather_leaves_less_contrast(density: float, more: float) -> None:
    image = stripes()
    assert contrast(with_effect(Haze(density=density + more), image)) < contrast(
        with_effect(Haze(density=density), image)
    )
    near, far = Fog(visibility_m=200 / (1 + more + density)), Fog(visibility_m=200 / (1 + density))
    assert contrast(with_effect(near, image)) < contrast(with_effect(far, image))


def test_fog_leaves_a_twentieth_of_the_contrast_at_its_visibility() -> None:
    image = np.zeros((100, 65, 3), np.uint8)
    image[:, ::2] = 255
    fog = Fog(visibility_m=30, horizon=0.5)  # the end of the street is at the centre of the image
    seen = to_linear(fog.apply(image, np.random.default_rng(0)))
    assert seen[49, 32, 0] - seen[49, 31, 0] == pytest.approx(0.05, abs=0.01)


def test_a_crop_is_as_hazy_as_its_part_of_the_whole_image() -> None:
    image = stripes()
    for effect in (Haze(density=2), Fog(visibility_m=60)):
        whole = with_effect(effect, image)
        part = effect.apply(image[50:], np.random.default_rng(0), rows=(0.5, 1.0))
        assert np.abs(whole[50:].astype(int) - part).max() <= 4
    fog = Fog(visibility_m=60)
    side = fog.cut((0.0, 1.0), (0.75, 1.0)).apply(image[:, 48:], np.random.default_rng(0))
    assert np.abs(with_effect(fog, image)[:, 48:].astype(int) - side).max() <= 4
    whole = degrade(image, "fog", 0.5, np.random.default_rng(0))
    part = degrade(image[50:], "fog", 0.5, np.random.default_rng(0), rows=(0.5, 1.0))
    assert np.abs(whole[50:].astype(int) - part).max() <= 4


def test_more_rain_hides_more_and_is_bright_and_falls() -> None:
    covers = [
        Rain(rate_mm_h=rate).cover(240, 320, np.random.default_rng(0)) for rate in (2, 20, 100)
    ]
    assert covers[0].mean() < covers[1].mean() < covers[2].mean() < 0.2
    assert covers[2].min() >= 0 and covers[2].max() <= 1
    # Streaks run down the image: vertical neighbours are more alike than horizontal ones.
    down, beside = (np.abs(np.diff(covers[2], axis=axis)).mean() for axis in (0, 1))
    assert down < 0.7 * beside
    # On the left, drops that the vehicle meets fly to the left as they fall.
    left = Rain(rate_mm_h=100, speed_m_s=12).cut((0.0, 1.0), (0.0, 0.3))
    cover = left.cover(240, 96, np.random.default_rng(0))
    leaning = [np.abs(cover[2:, 2:] - cover[:-2, :-2]), np.abs(cover[2:, :-2] - cover[:-2, 2:])]
    assert leaning[1].mean() < leaning[0].mean()
    dark = np.full((240, 320, 3), 30, np.uint8)
    assert with_effect(Rain(rate_mm_h=50, visibility_m=1e6), dark).mean() > 30


def test_a_longer_exposure_makes_longer_and_fainter_streaks() -> None:
    short, long = (
        Rain(rate_mm_h=20, exposure_s=t, speed_m_s=0).cover(240, 320, np.random.default_rng(0))
        for t in (0.002, 0.02)
    )
    assert long.max() < short.max() and (long > 0.001).mean() > (short > 0.001).mean()


def test_drops_do_not_multiply_in_a_strip() -> None:
    assert Rain(rate_mm_h=100).cover(8, 2000, np.random.default_rng(0)).max() <= 1


@pytest.mark.parametrize("kind", ["blur", "motion", "defocus", "jpeg"])
def test_blur_and_compression_lose_detail(kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    contrasts = [contrast(image)]
    for strength in (0.0, 1.0):
        contrasts.append(contrast(degrade(image, kind, strength, np.random.default_rng(0))))
    assert contrasts[0] > contrasts[1] > contrasts[2]


def test_motion_blurs_along_its_angle_only() -> None:
    image = stripes()
    assert contrast(with_effect(MotionBlur(reach_px=4, angle=np.pi / 2), image)) == contrast(image)
    assert contrast(with_effect(MotionBlur(reach_px=4, angle=0), image)) < 0.2 * contrast(image)
    assert contrast(with_effect(DefocusBlur(sigma_px=2), image)) < 0.2 * contrast(image)


@settings(deadline=None, max_examples=40)
@given(KINDS, st.one_of(st.floats(max_value=-1e-9), st.floats(min_value=1.0000001)))
def test_a_strength_out_of_range_is_refused(kind: str, strength: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        degrade(scene(), kind, strength, np.random.default_rng(0))


def test_wrong_arguments_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="'snow'; expected one of clean, dark"):
        degrade(scene(), "snow", 0.5, rng)
    with pytest.raises(ValueError, match="'snow'; expected one of clean, dark"):
        degrade(scene(), "dark+snow", 0.5, rng)
    for degradation in ("dark+dark", "clean+rain"):
        with pytest.raises(ValueError, match="expected different kinds"):
            degrade(scene(), degradation, 0.5, rng)
    with pytest.raises(ValueError, match=r"strength is 1\.5; expected 0 to 1"):
        degrade(scene(), "dark", 1.5, rng)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        Rain.draw(-0.1, rng)
    with pytest.raises(ValidationError, match="stops"):
        Darkness(stops=-1)
    with pytest.raises(ValidationError, match="quality"):
        Jpeg(quality=0)
