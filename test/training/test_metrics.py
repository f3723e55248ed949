# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Metrics of masks, light, thermal estimates and confidence, on cases computed by hand."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from magicfuse_ros.fuser import FusedFrame
from magicfuse_training.data import classes
from magicfuse_training.data.classes import (
    BICYCLIST,
    BUILDING,
    CAR,
    CLASSES,
    IGNORE,
    PAVEMENT,
    PEDESTRIAN,
    ROAD,
    SKY,
    STATIC,
    TREE,
)
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.layout import Record
from magicfuse_training.metrics.bootstrap import figure_of, share
from magicfuse_training.metrics.calibration import BINS, Calibration, bins_of, calibration_error
from magicfuse_training.metrics.frames import Frame, Labels, groups_of, label_image
from magicfuse_training.metrics.images import Constants, luma, psnr, ssim
from magicfuse_training.metrics.light import (
    Light,
    count_light,
    is_lit,
    people_in_label,
    precision,
    recall,
)
from magicfuse_training.metrics.people_scores import People
from magicfuse_training.metrics.restoration import Restoration
from magicfuse_training.metrics.segmentation import (
    Confusion,
    Segmentation,
    called,
    iou,
    mean_iou,
    right_group,
)
from magicfuse_training.metrics.thermal import Thermal, correlation, coverage

LIVING, VEHICLES, FAR = 241, 242, 244  # of IDD Lite
HUMAN = Labels("human")


def row(*ids: int) -> np.ndarray:
    return np.array([ids], np.uint8)


def flat(level: int, shape: tuple[int, ...] = (16, 16)) -> np.ndarray:
    return np.full(shape, level, np.uint8)


def frame(label: np.ndarray | None = None, labels: Labels | None = HUMAN, **known: object) -> Frame:
    shape = (16, 16) if label is None else label.shape
    values: dict[str, object] = {
        "name": "a", "index": 0, "night": False, "visible": np.zeros((*shape, 3), np.uint8),
        "label": label, "labels": None if label is None else labels, "thermal": None,
        "usual": None, "people": None, "anybody": [],
    }  # fmt: skip
    return Frame(**(values | known))  # type: ignore[arg-type]


def fused(**outputs: np.ndarray | None) -> FusedFrame:
    names = (
        "mag_image", "restored", "thermal_estimate", "thermal_uncertainty", "mask", "confidence",
    )  # fmt: skip
    return FusedFrame(**{name: outputs.get(name) for name in names}, steps=1, stages_ms={})


def matrix_of(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    confusion = Confusion(len(CLASSES))
    confusion.add(truth, predicted)
    return confusion.matrix.astype(np.float64)


# Images


def test_psnr_and_ssim_are_those_of_torchmetrics() -> None:
    from torchmetrics.functional import image as theirs  # takes seconds

    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 50), np.uint8)
    b = (a * 0.7 + 20).astype(np.uint8)
    x, y = (torch.from_numpy(image).float()[None, None] / 255 for image in (a, b))
    assert psnr(a, b) == pytest.approx(float(theirs.peak_signal_noise_ratio(x, y, 1.0)), 1e-5)
    want = float(theirs.structural_similarity_index_measure(x, y, data_range=1.0))
    assert ssim(a, b) == pytest.approx(want, abs=1e-4)


def test_psnr_of_colours_counts_every_channel() -> None:
    a, b = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    b[..., 0] = 30
    assert psnr(a, b) == pytest.approx(10 * np.log10(255**2 / (900 / 3)))


def test_the_best_constants_are_those_that_a_search_finds() -> None:
    rng = np.random.default_rng(0)
    reals = [rng.integers(0, 60, (24, 30), np.uint8), rng.integers(20, 40, (20, 20), np.uint8)]
    constants = Constants()
    for real in reals:
        constants.add(real)
    best = constants.best()
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        values = [np.mean([metric(np.full_like(r, i), r) for r in reals]) for i in range(80)]
        found = best[f"constant_of_best_{name}"]
        assert found["level"] == np.argmax(values)
        key = {"psnr": "psnr_db", "ssim": "ssim"}[name]
        assert found[key] == pytest.approx(max(values), abs=1e-3)


def test_a_clean_frame_is_restored_no_better_than_its_resizing_allows() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = {}
    for size in ((16, 16), (12, 12)):
        measure = Restoration(size)
        measure.add(frame(visible=image), image, fused(restored=image, mag_image=image))
        found[size] = measure.scores()["psnr_resized_db"].value
    assert found[16, 16] == 60 and found[12, 12] < 30


def test_luma_is_that_of_bt_601() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(image).tolist() == [[76, 150, 29]]


# Bootstrap


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        figure = figure_of(rng.normal(5, 2, 60))
        inside += figure.low <= 5 <= figure.high
    assert 88 <= inside <= 99
    figure = figure_of(rng.normal(5, 2, 400))
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)


def test_memory_hardly_grows_with_the_number_of_frames() -> None:
    rows = np.random.default_rng(1).normal(size=3000)
    tracemalloc.start()
    figure = figure_of(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    resamples = np.random.default_rng(0).integers(3000, size=(1000, 3000))  # all at once
    expected = np.percentile(rows[resamples].mean(1), (2.5, 97.5))
    assert [figure.low, figure.high] == pytest.approx(expected.tolist())
    constants, sizes = Constants(), []
    for _ in range(3):
        constants.add(np.zeros((8, 8), np.uint8))
        sizes.append(len(pickle.dumps(constants)))
    assert sizes[-1] - sizes[0] < 100


def test_a_figure_is_of_all_frames_together_and_the_same_every_time() -> None:
    counts = np.array([[1, 1], [0, 9.0]])  # a share of 0.1, not the mean of 1 and 0
    figure = figure_of(counts, lambda m: share(m[:, 0], m[:, 1]))
    assert figure == (0.1, 0.0, 1.0)
    assert figure == figure_of(counts, lambda m: share(m[:, 0], m[:, 1]))
    assert figure_of([3.0]) == (3.0, 3.0, 3.0) == figure_of([np.nan, 3.0])
    assert np.isnan(figure_of([np.nan, np.nan]).value) and np.isnan(figure_of([]).value)
    assert np.isnan(figure_of(np.zeros((2, 2)), lambda m: share(m[:, 0], m[:, 1])).value)


# Masks


def test_iou_counts_what_a_set_of_classes_does_not_allow() -> None:
    truth = row(ROAD, ROAD, SKY, LIVING, LIVING, IGNORE)
    predicted = row(ROAD, SKY, SKY, ROAD, PEDESTRIAN, ROAD)
    values = iou(matrix_of(truth, predicted))
    assert values[ROAD] == pytest.approx(100 / 3)  # of two, and the living thing
    assert values[SKY] == pytest.approx(50)
    assert np.isnan(values[PEDESTRIAN]), "nowhere is it known to be one"
    assert mean_iou(matrix_of(truth, predicted), range(11)) == pytest.approx((100 / 3 + 50) / 2)
    assert mean_iou(matrix_of(truth, predicted), [SKY, CAR]) == pytest.approx(50)


def test_mean_iou_of_two_known_masks() -> None:
    confusion = Confusion(len(CLASSES))
    assert np.isnan(confusion.mean_iou())
    confusion.add(np.uint8([[0, 0, 0], [1, 1, 1]]), np.uint8([[0, 0, 1], [1, 1, 2]]))
    assert confusion.mean_iou() == pytest.approx(100 * (2 / 3 + 2 / 4) / 2)


def test_a_group_is_right_where_one_of_its_classes_is_called() -> None:
    truth = row(LIVING, LIVING, LIVING, LIVING, VEHICLES, FAR, FAR, ROAD, ROAD)
    predicted = row(PEDESTRIAN, BICYCLIST, CAR, ROAD, BICYCLIST, TREE, SKY, ROAD, TREE)
    shares = right_group(matrix_of(truth, predicted), [LIVING, VEHICLES, FAR, ROAD, SKY])
    assert shares[:4].tolist() == [50, 100, 50, 50] and np.isnan(shares[4])
    groups = Labels("human", groups_of(classes.IDD_LITE))
    measure = Segmentation(CLASSES)
    measure.add(frame(truth, groups), truth, fused(mask=predicted))
    scores = measure.scores()
    assert scores["right_group_percent"].value == pytest.approx(62.5)
    assert scores["group_percent"]["living things"] == pytest.approx(50)
    assert "miou_percent" not in scores and scores["iou_percent"] == {
        "road": pytest.approx(100 / 3)
    }


def test_only_maps_of_mostly_sets_are_scored_by_group() -> None:
    names = groups_of(classes.IDD_LITE)
    assert len(names) == 7 and names[LIVING] == "living things" and names[ROAD] == "drivable"
    for labels in (classes.IDD, classes.MFNET, classes.CITYSCAPES, classes.CAMVID):
        assert groups_of(labels) == {}


def test_a_class_of_a_few_frames_is_not_in_the_mean() -> None:
    """Without its frames, a resample would have a mean of other classes."""
    means = {}
    for shown in (4, 5):
        measure = Segmentation(CLASSES)
        for i in range(20):
            truth = row(ROAD, CAR if i < shown else SKY, SKY)
            measure.add(frame(truth), flat(0), fused(mask=row(ROAD, SKY, SKY)))
        means[shown] = measure.scores()["miou_percent"].value
    assert means[4] == pytest.approx(100 * (1 + 36 / 40) / 2)
    assert means[5] == pytest.approx(100 * (1 + 35 / 40 + 0) / 3)


def test_mean_iou_is_of_all_frames_together() -> None:
    measure = Segmentation(CLASSES)
    for truth, predicted in (
        (row(ROAD, ROAD, ROAD, SKY), row(ROAD, ROAD, ROAD, SKY)),
        (row(ROAD, SKY), row(SKY, SKY)),
    ):
        measure.add(frame(truth), truth, fused(mask=predicted))
    scores = measure.scores()
    assert scores["iou_percent"] == {"sky": pytest.approx(200 / 3), "road": 75.0}
    assert scores["miou_percent"].value == pytest.approx((200 / 3 + 75) / 2)
    assert scores["miou_percent"].low == pytest.approx(25), "of the second frame alone"
    assert scores["labels"] == "human" and "called_road_percent" not in scores
    assert Segmentation(CLASSES).scores() == {}


def test_coarse_masks_of_nights_are_scored_in_what_they_show_well() -> None:
    truth = row(SKY, SKY, BUILDING, BUILDING, TREE, PAVEMENT, ROAD, PEDESTRIAN)
    predicted = row(ROAD, SKY, ROAD, ROAD, TREE, ROAD, ROAD, PEDESTRIAN)
    measure = Segmentation(CLASSES)
    night = frame(truth, Labels("coarse by eye"), night=True)
    measure.add(night, truth, fused(mask=predicted))
    scores = measure.scores()
    by_class = scores["iou_percent"]
    assert by_class == {"sky": 50, "building": 0, "tree": 100, "road": 20, "pedestrian": 100}
    assert scores["miou_percent"].value == pytest.approx(54)
    shares = {name: figure.value for name, figure in scores["called_road_percent"].items()}
    assert shares == {"sky": 50, "building": 100, "tree": 0, "all": 60}
    assert np.isnan(called(matrix_of(truth, predicted), [CAR], ROAD))


def test_nights_are_scored_against_coarse_masks_alone_and_statics_by_day_against_nothing() -> None:
    data = dataset("msrs-repacked")
    files = {part: Path(part) for part in ("label", "coarse", "teacher")}
    record = Record("1", Path("visible"), **files)
    assert label_image(data, record, night=True) == (
        Path("coarse"), classes.PROJECT, "coarse by eye",
    )  # fmt: skip
    assert label_image(data, record, night=False) == (Path("label"), classes.MFNET, "pseudo")
    assert label_image(data, Record("1", Path("visible"), label=Path("label")), night=True) is None
    idd = label_image(dataset("idd-repacked"), record, night=False)
    assert idd == (Path("label"), classes.IDD_LITE, "human")
    measure = Segmentation(CLASSES)  # a car where nothing moves is still an error
    truth, predicted = row(CAR, STATIC, STATIC, PEDESTRIAN), row(CAR, CAR, SKY, PEDESTRIAN)
    measure.add(frame(truth, Labels("pseudo")), truth, fused(mask=predicted))
    assert measure.scores()["iou_percent"] == {"car": 50.0, "pedestrian": 100.0}


# Confidence


def test_calibration_error_of_a_known_case() -> None:
    confidence = np.array([255, 255, 255, 255, 51, 51], np.uint8)
    right = np.array([True, True, True, False, False, False])
    bins = bins_of(confidence, right)
    assert bins[:, BINS - 1].tolist() == [4, 3, 4] and bins[:, 3].tolist() == pytest.approx(
        [2, 0, 0.4]
    )
    assert calibration_error(bins) == pytest.approx(100 * (4 * 0.25 + 2 * 0.2) / 6)
    assert np.isnan(calibration_error(np.zeros((3, BINS))))


def test_calibration_is_of_pixels_whose_class_is_known() -> None:
    truth = row(ROAD, SKY, LIVING, IGNORE)
    outputs = fused(mask=row(ROAD, ROAD, SKY, SKY), confidence=row(255, 255, 255, 255))
    measure = Calibration(len(CLASSES))
    assert measure.applies(frame(truth)) and not measure.applies(frame(truth, Labels("pseudo")))
    assert not measure.applies(frame())
    assert measure.scores() == {}
    measure.add(frame(truth), truth, outputs)
    assert measure.scores()["ece_percent"].value == pytest.approx(50)


# Light


def test_a_pixel_is_lit_from_20_levels_of_luma_on() -> None:
    restored = flat(100, (1, 3, 3))
    mag_image = restored + np.array([19, 20, 250 - 100], np.uint8)[None, :, None]
    assert is_lit(mag_image, restored).tolist() == [[False, True, True]]
    assert not is_lit(restored, mag_image).any(), "darker is not lit"


def test_light_is_counted_on_widened_people_without_void() -> None:
    people = np.zeros((1, 30), bool)
    people[0, 10:12] = True
    lit, known = np.zeros_like(people), np.ones_like(people)
    lit[0, [5, 4, 11, 16, 17, 25, 26]] = True  # 5 to 16 are near people
    known[0, 26:28] = False
    counts = count_light(lit, people, known)
    assert counts == (3, 6, 1, 2, 26)
    assert precision(np.array(counts, float)) == pytest.approx(0.5)
    assert recall(np.array(counts, float)) == pytest.approx(0.5)
    assert np.isnan(precision(np.array([3, 3, 1, 2, 0.0]))), "nowhere could it be wrong"


def test_who_is_people_in_a_label() -> None:
    label = row(PEDESTRIAN, BICYCLIST, ROAD, LIVING, VEHICLES, STATIC, IGNORE)
    people, known = people_in_label(label, [PEDESTRIAN, BICYCLIST])
    assert people.tolist() == [[True, True, False, True, False, False, False]]
    assert known.tolist() == [[True, True, True, True, False, True, False]]
    people, known = people_in_label(label, [PEDESTRIAN])
    assert people.tolist() == [[True, False, False, False, False, False, False]]
    assert known.tolist() == [[True, True, True, False, True, True, False]]


def test_riders_are_people_in_the_first_two_scores_of_light() -> None:
    label = np.full((1, 60), ROAD, np.uint8)
    label[0, 10], label[0, 40] = PEDESTRIAN, BICYCLIST
    restored = flat(50, (1, 60, 3))
    mag_image = restored.copy()
    mag_image[0, [40, 41, 10, 59]] = 90
    measure = Light(CLASSES)
    assert not measure.applies(frame(label, Labels("pseudo")))
    measure.add(frame(label), restored, fused(mag_image=mag_image, restored=restored))
    values = {name: figure.value for name, figure in measure.scores().items()}
    assert values == {
        "light_precision": 0.75, "light_recall": 1.0,
        "light_precision_pedestrians": 0.25, "light_recall_pedestrians": 1.0,
    }  # fmt: skip


def test_bicycles_of_coarse_masks_are_unknown_because_nobody_may_ride_them() -> None:
    label = row(PEDESTRIAN, *[ROAD] * 20, BICYCLIST)
    restored = flat(50, (1, 22, 3))
    mag_image = restored.copy()
    mag_image[0, [0, 12, 21]] = 90
    measure = Light(CLASSES)
    labelled = frame(label, Labels("coarse by eye"))
    measure.add(labelled, restored, fused(mag_image=mag_image, restored=restored))
    scores = measure.scores()
    assert scores["light_precision"].value == 0.5, "of the pedestrian and the road"
    assert scores["light_recall"].value == 1


def test_without_people_there_is_no_score_of_light() -> None:
    measure = Light(CLASSES)
    image = flat(9, (1, 2, 3))
    measure.add(frame(row(ROAD, SKY)), image, fused(mag_image=image, restored=image))
    assert measure.scores() == {}


# Thermal


def test_correlation_knows_no_level_and_no_gain() -> None:
    a = np.array([[0, 10], [20, 30]], np.uint8)
    assert correlation(a, a // 2 + 100) == pytest.approx(1)
    assert correlation(a, 200 - a) == pytest.approx(-1)
    assert correlation(a, np.array([[0, 20], [0, 20]], np.uint8)) == pytest.approx(1 / 5**0.5)
    assert correlation(a, flat(7, (2, 2))) == 0


def test_coverage_of_normal_intervals() -> None:
    # Half of the errors are within 0.674 x 14 = 9.44, 90 % within 1.645 x 14 = 23.03.
    estimate, deviation = flat(100, (1, 4)), row(14, 14, 14, 14)
    real = row(91, 109, 90, 124)
    assert coverage(estimate, deviation, real, 50) == 50
    assert coverage(estimate, deviation, real, 90) == 75
    assert coverage(estimate, row(0, 0, 0, 0), row(100, 100, 101, 100), 90) == 75  # 0.5: 0.82


def test_levels_that_are_cut_off_tell_nothing_of_an_interval() -> None:
    real = row(0, 0, 255, 110, 130)
    assert coverage(flat(0, (1, 5)) + row(5, 50, 250, 100, 100), flat(10, (1, 5)), real, 90) == 50
    assert np.isnan(coverage(flat(5, (1, 2)), flat(9, (1, 2)), flat(0, (1, 2)), 90))


def test_what_an_estimate_says_of_itself_is_what_happens() -> None:
    rng = np.random.default_rng(0)
    real = (128 + rng.normal(0, 20, (200, 200)).round()).clip(0, 255).astype(np.uint8)
    for percent in (50, 90):
        stated = coverage(flat(128, (200, 200)), flat(20, (200, 200)), real, percent)
        assert stated == pytest.approx(percent, abs=2)


def test_thermal_scores_are_means_over_frames_at_the_usual_gain() -> None:
    rng = np.random.default_rng(0)
    real, scene = (rng.integers(0, 100, (16, 16), np.uint8) for _ in range(2))
    measure = Thermal(uncertain=True)
    assert measure.outputs == {"thermal_estimate", "thermal_uncertainty"}
    assert Thermal(uncertain=False).outputs == {"thermal_estimate"}
    assert not measure.applies(frame()) and measure.scores() == {}
    visible = np.dstack([scene] * 3)
    for error in (5, 10):
        outputs = fused(thermal_estimate=real + error, thermal_uncertainty=flat(10))
        pair = frame(visible=visible, thermal=real + 100, usual=real)  # it has another gain
        assert measure.applies(pair)
        measure.add(pair, visible, outputs)
    scores = measure.scores()["thermal"]
    expected = np.mean([20 * np.log10(255 / error) for error in (5, 10)])
    assert scores["psnr_estimate_db"].value == pytest.approx(expected)
    assert scores["correlation_estimate"].value == pytest.approx(1)
    assert abs(scores["correlation_gray_visible"].value) < 0.5
    assert scores["psnr_gray_visible_db"].value == pytest.approx(psnr(scene, real))
    assert scores["coverage_50_percent"].value == 50  # 6.7 levels
    assert scores["coverage_90_percent"].value == 100
    assert scores["constant_of_best_psnr"]["level"] == pytest.approx(real.mean(), abs=1)


# People


def test_people_in_boxes_are_weighed_alike_in_every_frame() -> None:
    day, night = People(CLASSES), People(CLASSES)
    assert not day.applies(frame())
    shape = (60, 60)
    box, other = (20, 20, 30, 40), (50, 50, 54, 60)
    for measure, real, seen in ((day, 100, 50), (night, 200, 20)):
        thermal, estimate = np.zeros((2, *shape), np.uint8)
        thermal[20:40, 20:30], estimate[20:40, 20:30] = real, seen
        mask = np.full(shape, ROAD, np.uint8)
        mask[20:40, 20 : 22 if measure is day else 20] = PEDESTRIAN  # a fifth of the box; or none
        mask[:10, :10] = PEDESTRIAN  # 100 pixels elsewhere
        image = np.full((*shape, 3), 30, np.uint8)
        known = {"thermal": thermal, "usual": thermal, "people": [box], "anybody": [box, other]}
        outputs = fused(thermal_estimate=estimate, restored=image, mag_image=image, mask=mask)
        measure.add(frame(visible=image, **known), image, outputs)
    by_day, both = day.scores()["people"], (day + night).scores()["people"]
    contrasts = {name: figure.value for name, figure in by_day["person_contrast"].items()}
    assert contrasts == {"thermal_estimate": 0.5, "visible": 0, "mag_image": 0}
    assert by_day["person_contrast_real"] == 100 and by_day["luma"]["visible"] == 30
    inside, found = "pedestrian_pixels_in_person_box_percent", "person_boxes_found_percent"
    assert by_day[inside].value == pytest.approx(100 * 40 / 140) and by_day[found].value == 100
    assert both["person_contrast"]["thermal_estimate"].value == pytest.approx(70 / 300)
    assert both[inside].value == pytest.approx(100 * 40 / 240)
    assert both[found] == (50, 0, 100), "one of two frames, drawn again, has both or none"
    assert both["frames"] == 2 and both["person_boxes"] == 2
    assert People(CLASSES).scores() == {}
    night.add(frame(visible=image, **known), image, outputs)  # the same frame again
    twice = night.scores()["people"]
    assert twice["frames"] == 2 and twice["person_boxes"] == 2 and twice["pedestrian_pixels"] == 200
    assert twice["person_contrast_real"] == 400
    assert twice["person_contrast"]["thermal_estimate"].value == pytest.approx(0.1)
