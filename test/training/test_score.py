"""Scores against cases that can be worked out by hand."""

from pathlib import Path

import dataset_files
import numpy as np
import pytest

from magicfuse_training.data.classes import CLASSES, MFNET_CLASSES
from magicfuse_training.metrics.fusion import entropy, spatial_frequency
from magicfuse_training.metrics.people import contrast
from magicfuse_training.metrics.score import (
    Confusion,
    best_constant,
    camvid_label,
    people_on_all,
    psnr,
    ssim,
)


def test_iou_of_a_known_case() -> None:
    confusion = Confusion(3)
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    confusion.add(truth, np.array([[0, 1, 1, 2]], np.uint8))
    assert confusion.iou()[:2].tolist() == [50.0, 50.0]
    assert np.isnan(confusion.iou()[2]), "it is nowhere true: no score of this class"


def test_masks_of_camvid_are_scored_in_the_ids_of_the_bundle(tmp_path: Path) -> None:
    dataset_files.camvid_repacked(tmp_path)
    for names, ids in ((CLASSES, [8, 9, 10, 0]), (MFNET_CLASSES, [1, 2, 3, 0])):
        assert camvid_label(tmp_path, "train", "0001TP_006690", names)[0, :4].tolist() == ids


def test_psnr_and_ssim_of_known_cases() -> None:
    image = np.random.default_rng(0).integers(0, 250, (32, 32), np.uint8)
    assert psnr(image, image) == 60.0 and ssim(image, image) == pytest.approx(1.0)
    assert psnr(image, image + 5) == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)


def test_contrast_is_the_box_minus_its_ring_without_other_people() -> None:
    image = np.full((60, 60), 10, np.uint8)
    image[20:40, 20:30] = 110
    image[20:40, 32:40] = 250  # a second person stands in the ring
    box, other = (20, 20, 30, 40), (32, 20, 40, 40)
    assert contrast(image, box, [box, other]) == pytest.approx(100)
    with_other = contrast(image, box, [box])
    assert with_other is not None and with_other < 100
    assert contrast(image, (0, 0, 60, 60), [(0, 0, 60, 60)]) is None


def test_entropy_and_spatial_frequency_of_known_cases() -> None:
    flat, steps = np.full((8, 8), 7, np.uint8), np.tile(np.array([0, 10], np.uint8), (8, 4))
    assert entropy(flat) == 0 and spatial_frequency(flat) == 0
    assert entropy(steps) == pytest.approx(1) and spatial_frequency(steps) == pytest.approx(10)


def test_the_best_constant_is_found_between_the_coarse_levels() -> None:
    reals = [np.full((16, 16), 21, np.uint8)]
    assert best_constant(psnr, reals) == pytest.approx({"level": 21, "psnr_db": 60, "ssim": 1})


def test_scores_of_people_on_all_frames_weigh_every_box_and_pixel_alike() -> None:
    inside, found = "pedestrian_pixels_in_person_box_percent", "person_boxes_found_percent"
    day = {
        "person_contrast": {"thermal_estimate": 0.6}, "person_contrast_real": 300.0,
        inside: 80.0, "pedestrian_pixels": 100, found: 50.0, "person_boxes": 4,
    }  # fmt: skip
    night = {
        "person_contrast": {"thermal_estimate": 0.2}, "person_contrast_real": 100.0,
        inside: 20.0, "pedestrian_pixels": 300, found: 100.0, "person_boxes": 1,
    }  # fmt: skip
    both = people_on_all([day, night])
    assert both["person_contrast"]["thermal_estimate"] == pytest.approx(0.5)
    assert both[inside] == pytest.approx(35.0) and both[found] == pytest.approx(60.0)
    nobody = {**day, "person_contrast_real": 0.0, "pedestrian_pixels": 0, "person_boxes": 0}
    assert people_on_all([nobody])[found] == 0
