"""The camera and weather model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.media.degradations import DEGRADATIONS, degrade, to_linear, to_srgb


def scene() -> np.ndarray:
    """Return a smooth bright image with edges."""
    row = np.linspace(60, 220, 96, dtype=np.float32)
    image = np.repeat(np.repeat(row[None], 64, 0)[..., None], 3, 2).astype(np.uint8)
    image[20:40, 30:50] = (200, 40, 40)
    return image


def mean_over_draws(kind: str, strength: float) -> float:
    draws = [degrade(scene(), kind, strength, np.random.default_rng(i)).mean() for i in range(20)]  # type: ignore[arg-type]
    return float(np.mean(draws))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(DEGRADATIONS),
    st.floats(0, 1),
    st.integers(0, 2**31),
    st.integers(8, 50),
    st.integers(8, 50),
)
def test_any_image_keeps_its_shape_and_the_input_is_not_touched(kind, strength, seed, h, w) -> None:  # type: ignore[no-untyped-def]
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    before = image.copy()
    out = degrade(image, kind, strength, np.random.default_rng(seed))
    again = degrade(image, kind, strength, np.random.default_rng(seed))
    assert out.shape == image.shape and out.dtype == np.uint8
    assert np.array_equal(image, before) and np.array_equal(out, again)


def test_every_code_survives_linear_light() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_srgb(to_linear(codes)), codes)


def test_more_darkness_is_darker_and_noisier_relative_to_its_signal() -> None:
    assert scene().mean() > mean_over_draws("dark", 0.0) > mean_over_draws("dark", 0.6)
    assert mean_over_draws("dark", 0.6) > mean_over_draws("dark", 1.0)
    flat = np.full((64, 64, 3), 128, np.uint8)
    dark = degrade(flat, "dark", 0.8, np.random.default_rng(0)).astype(float)
    assert (dark[1:] - dark[:-1]).std() > 1


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


def test_haze_takes_contrast_most_at_the_horizon_and_little_nearby() -> None:
    image = np.zeros((100, 64, 3), np.uint8)
    image[:, ::2] = 255
    hazy = degrade(image, "haze", 0.5, np.random.default_rng(0)).astype(float)
    contrast = np.abs(hazy[:, ::2] - hazy[:, 1::2]).mean((1, 2))
    assert contrast[20] < 0.6 * contrast[99]


def test_blur_and_compression_lose_detail() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for kind in ("blur", "jpeg"):
        out = degrade(image, kind, 1.0, np.random.default_rng(0)).astype(float)
        assert (
            np.abs(np.diff(out, axis=1)).mean()
            < np.abs(np.diff(image.astype(float), axis=1)).mean()
        )


def test_wrong_arguments_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="'snow'; expected one of clean, dark"):
        degrade(scene(), "snow", 0.5, rng)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"strength is 1\.5; expected 0 to 1"):
        degrade(scene(), "dark", 1.5, rng)
