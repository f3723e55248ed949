# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The fusion field's metrics against cases computed by hand, and against a library."""

import math

import numpy as np
import pytest
import torch

from magicfuse_training.metrics.fusion import (
    edge_preservation,
    entropy,
    fusion_psnr,
    fusion_scores,
    mutual_information,
    spatial_frequency,
    vif,
)
from magicfuse_training.metrics.images import MS_SSIM_SMALLEST, ms_ssim

FLAT = np.full((8, 8), 7, np.uint8)
STRIPES = np.tile(np.array([0, 10], np.uint8), (8, 4))
BEST_QABF = 0.9994 / (1 + math.exp(-7.5)) * 0.9879 / (1 + math.exp(-4.4))


def step(low: int, high: int) -> np.ndarray:
    """Return an edge from dark to bright, left to right."""
    image = np.full((10, 12), low, np.uint8)
    image[:, 6:] = high
    return image


def textures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 14), np.uint8).astype(float)
    image = np.kron(coarse, np.ones((16, 16)))[:181, :200]
    noise = rng.normal(0, 12, image.shape)
    return image.astype(np.uint8), (0.7 * image + 20 + noise).clip(0, 255).astype(np.uint8)


def test_entropy_and_spatial_frequency_of_known_cases() -> None:
    assert entropy(FLAT) == 0 and spatial_frequency(FLAT) == 0
    assert entropy(STRIPES) == pytest.approx(1) and spatial_frequency(STRIPES) == pytest.approx(10)


def test_mutual_information_is_in_bits() -> None:
    assert mutual_information(STRIPES, STRIPES) == pytest.approx(1), "all of its one bit"
    assert mutual_information(STRIPES, 255 - STRIPES) == pytest.approx(1), "whatever the levels"
    assert mutual_information(STRIPES, STRIPES.T) == pytest.approx(0), "rows tell no column"
    # p(0, 0) = p(1, 1) = p(1, 0) = 1/3: H(1/3) + H(1/3) - log2(3)
    a, b = np.array([[0, 1, 1]], np.uint8), np.array([[0, 1, 0]], np.uint8)
    third = -(1 / 3) * math.log2(1 / 3) - (2 / 3) * math.log2(2 / 3)
    assert mutual_information(a, b) == pytest.approx(2 * third - math.log2(3))


def test_edges_that_are_kept_or_lost_or_turned() -> None:
    edge = step(20, 100)
    assert edge_preservation(edge, edge, edge) == pytest.approx(BEST_QABF)
    assert edge_preservation(edge, edge, 255 - edge) == pytest.approx(BEST_QABF), "same line"
    # Half of the strength: 0.9994 / (1 + exp(-15 (0.5 - 0.5))) is half of 0.9994.
    half = 0.9994 / 2 * 0.9879 / (1 + math.exp(-4.4))
    assert edge_preservation(edge, edge, step(20, 60)) == pytest.approx(half)
    # None of it: no strength, and an edge without orientation counts as a horizontal one.
    lost = 0.9994 / (1 + math.exp(7.5)) * 0.9879 / (1 + math.exp(-4.4))
    assert edge_preservation(edge, edge, np.full_like(edge, 20)) == pytest.approx(lost)
    # A source whose edge is three times as strong counts three times as much.
    strong, flat = step(20, 140), np.full_like(edge, 50)
    assert edge_preservation(strong, flat, strong) == pytest.approx(BEST_QABF)
    third = 0.9994 / (1 + math.exp(-15 * (1 / 3 - 0.5))) * 0.9879 / (1 + math.exp(-4.4))
    mixed = edge_preservation(strong, step(20, 60), strong)
    assert mixed == pytest.approx((3 * BEST_QABF + third) / 4)
    assert math.isnan(edge_preservation(flat, flat, edge)), "there was no edge to keep"


def test_an_edge_turned_by_a_right_angle_is_lost() -> None:
    down = np.full((12, 12), 20, np.uint8)
    down[6:] = 100
    turned = edge_preservation(step(20, 100)[:, :12], step(20, 100)[:, :12], down[:10])
    assert turned < 0.01


def test_the_fused_psnr_is_of_the_mean_of_both_errors() -> None:
    a, b, fused = (np.full((4, 4), v, np.uint8) for v in (100, 130, 110))
    mean = (10**2 + 20**2) / 2
    assert fusion_psnr(a, b, fused) == pytest.approx(10 * math.log10(255**2 / mean))
    assert fusion_psnr(a, a, a) == 60


def test_vif_and_ms_ssim_are_those_of_a_library() -> None:
    from torchmetrics.functional.image import (  # takes seconds
        multiscale_structural_similarity_index_measure,
        visual_information_fidelity,
    )

    image, other = textures()
    a, b = (torch.from_numpy(x).float()[None, None] for x in (other, image))
    assert vif(other, image) == pytest.approx(float(visual_information_fidelity(a, b)), rel=1e-3)
    assert vif(image, image) == pytest.approx(1, abs=1e-4)
    theirs = multiscale_structural_similarity_index_measure(a, b, data_range=255.0)
    assert ms_ssim(other, image) == pytest.approx(float(theirs), abs=1e-3)
    assert ms_ssim(image, image) == pytest.approx(1)


def test_what_is_too_small_has_no_score() -> None:
    small = np.zeros((40, 200), np.uint8)
    assert math.isnan(vif(small, small)) and math.isnan(ms_ssim(small, small))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    assert all(math.isnan(vif(noise, np.full_like(noise, level))) for level in (0, 127, 255))
    assert MS_SSIM_SMALLEST == 176


def test_what_is_summed_over_the_sources_and_what_needs_none() -> None:
    scores = fusion_scores(STRIPES, (STRIPES, STRIPES.T))
    assert scores["MI"] == pytest.approx(1 + 0) and scores["SSIM"] < 2
    assert fusion_scores(STRIPES, (STRIPES, STRIPES))["SSIM"] == pytest.approx(2)
    assert fusion_scores(STRIPES, (STRIPES, STRIPES))["MI"] == pytest.approx(2)
    assert set(fusion_scores(STRIPES, None)) == {"EN", "SD", "SF"}
