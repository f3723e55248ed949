"""Scores against cases that can be worked out by hand."""

import numpy as np
import pytest

from magicfuse_training.metrics.score import Confusion, _contrast, psnr, ssim


def test_iou_of_a_known_case() -> None:
    confusion = Confusion(3)
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    confusion.add(truth, np.array([[0, 1, 1, 2]], np.uint8))
    assert confusion.iou().tolist() == [50.0, 50.0, 0.0]


def test_psnr_and_ssim_of_known_cases() -> None:
    image = np.random.default_rng(0).integers(0, 250, (32, 32), np.uint8)
    assert psnr(image, image) == 60.0 and ssim(image, image) == pytest.approx(1.0)
    assert psnr(image, image + 5) == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)


def test_contrast_is_the_box_minus_its_ring_without_other_people() -> None:
    image = np.full((60, 60), 10, np.uint8)
    image[20:40, 20:30] = 110
    image[20:40, 32:40] = 250  # a second person stands in the ring
    box, other = (20, 20, 30, 40), (32, 20, 40, 40)
    assert _contrast(image, box, [box, other]) == pytest.approx(100)
    with_other = _contrast(image, box, [box])
    assert with_other is not None and with_other < 100
    assert _contrast(image, (0, 0, 60, 60), [(0, 0, 60, 60)]) is None
