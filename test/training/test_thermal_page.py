# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""How far the thermal estimate generalises: parts by hand, and the command from files to page."""

from pathlib import Path

import dataset_files
import numpy as np
import pytest
from test_metrics import fused

import tiny_bundle
from cli_run import train
from magicfuse_ros.bundle import Bundle, write_manifest
from magicfuse_ros.fuser import FusedFrame
from magicfuse_training.data.mix import Source, by_name
from magicfuse_training.data.scenes import Scene
from magicfuse_training.errors import TrainingError
from magicfuse_training.metrics.pages import write_page
from magicfuse_training.metrics.thermal_detail import PERCENTS, Part, compare, distances, relation
from magicfuse_training.metrics.thermal_page import END, START

TRAINED = ["msrs-repacked, split train: 219 scenes (MSRS)", "fmb, split train: 9 scenes (FMB)"]


def scene(thermal: np.ndarray, label: np.ndarray, teacher: np.ndarray | None = None) -> Scene:
    visible = np.repeat(thermal[..., None], 3, 2)
    return Scene("7N", visible, visible, False, thermal, label, np.zeros((0, 4)), teacher)


def estimate(mean: np.ndarray, deviation: int | None = None) -> FusedFrame:
    stated = None if deviation is None else np.full_like(mean, deviation)
    return fused(thermal_estimate=mean, thermal_uncertainty=stated)


def test_what_a_bundle_knows_of_a_set_is_in_its_provenance() -> None:
    assert relation(TRAINED, "msrs-repacked", "train") == "trained on"
    for split in ("train", "test"):
        assert relation(TRAINED, "msrs", split) == "trained on", "its frames are from both"
    camvid = ["camvid-repacked, split train: 367 scenes (SegNet's CamVid)"]
    for kind, split, known in (
        ("camvid-segnet", "train", "trained on"),
        ("camvid-segnet", "test", "same set"),
        ("camvid", "all", "trained on"),
        ("camvid-repacked", "val", "same set"),
    ):
        assert relation(camvid, kind, split) == known, (kind, split)
    assert relation(TRAINED, "msrs-repacked", "dev") == "same set"
    for known_set, kind, split, known in (
        ("cityscapes, split train", "cityscapes-repacked", "dev", "trained on"),
        ("cityscapes-repacked, split train", "cityscapes", "val", "same set"),
        ("camvid, split all", "camvid-segnet", "test", "trained on"),
        ("camvid-segnet, split train", "camvid", "all", "trained on"),
        ("camvid-segnet, split train", "camvid-repacked", "val", "same set"),
        ("idd-lite, split train", "idd-repacked", "dev", "trained on"),
        ("msrs, split train", "msrs", "test", "same set"),
        ("mfnet, split train", "msrs", "test", "trained on"),  # its frames are MFNet's
        ("msrs, split train", "mfnet", "test", "trained on"),
    ):
        assert relation([f"{known_set}: 9 scenes"], kind, split) == known, (known_set, kind)
    assert relation(TRAINED, "roadscene-repacked", "train") == "unknown set"
    assert relation([], "msrs-repacked", "dev") == "not recorded"
    own = ["folder, split train: 9 scenes (somebody's)"]
    assert relation(own, "folder", "train") == "not recorded", "which folder it was"
    assert relation(own, "msrs", "train") == "unknown set"


def test_distance_is_to_the_nearest_frame_of_the_training() -> None:
    trained = ["FLIR_00010", "FLIR_00100"]
    assert distances(["FLIR_00010", "FLIR_00060", "x"], trained) == [0, 40, None]
    assert distances(["00012N"], []) == [None]
    assert distances(["set06/V000/I00019"], ["set00/V000/I00019"]) == [None], "another recording"
    assert Part("mine", ".", True, "unknown set").title == "mine, night", "a set without splits"


def test_an_estimate_that_knows_classes_alone_has_no_correlation_within_them() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.array([0, 1], np.uint8), 20)[None].repeat(40, 0)
    real = (np.where(label == 0, 50, 150) + rng.integers(-20, 21, label.shape)).astype(np.uint8)
    noise = rng.integers(-5, 6, label.shape)
    classes = (np.where(label == 0, 50, 150) + noise).astype(np.uint8)
    part = Part(
        "msrs", "dev", True, "same set", [compare(scene(real, label), estimate(classes), 3)]
    )
    assert part.frames[0].correlation > 0.9 and part.between().value == pytest.approx(1)
    assert abs(part.within().value) < 0.1
    part.frames = [compare(scene(real, label), estimate(real), 3)]
    assert part.within().value == pytest.approx(1) and part.by_class(2) is None
    warm = part.by_class(1)
    assert warm is not None and warm["error"].value == 0 and warm["pixels"].value == 50
    assert np.isnan(warm["inside"].value), "it states no uncertainty"


def test_errors_by_class_and_what_is_stated_of_them() -> None:
    label = np.full((30, 30), 255, np.uint8)
    label[:15], teacher = 0, np.full((30, 30), 2, np.uint8)
    teacher[0] = 1
    real = np.full((30, 30), 100, np.uint8)
    shown = np.where(label == 0, 90, 130).astype(np.uint8)
    part = Part("msrs", "dev", False, "same set")
    part.frames = [compare(scene(real, label, teacher), estimate(shown, 14), 3)]  # 90 %: 23.0
    cold, warm = part.by_class(0), part.by_class(2)
    assert cold is not None and warm is not None, "the teacher's label is used where the other ends"
    assert (cold["error"].value, cold["bias"].value, cold["inside"].value) == (10, -10, 100)
    assert (warm["error"].value, warm["bias"].value, warm["inside"].value) == (30, 30, 0)
    assert part.by_class(1) is None, "the label goes before the teacher's"
    assert part.mean("error").value == 20 and part.constant_error() == 0
    inside = part.inside()
    assert inside is not None
    # an error of 10 needs an interval of 52.5 %, one of 30 needs 96.8 %
    assert inside.tolist() == [0.5 if percent > 52.5 else 0.0 for percent in PERCENTS]


def test_a_frame_whose_sky_is_cut_off_says_nothing_of_the_intervals_there() -> None:
    label, shown = np.zeros((30, 30), np.uint8), np.full((30, 30), 100, np.uint8)
    cut_off, real = np.zeros((30, 30), np.uint8), np.full((30, 30), 100, np.uint8)
    real[:15] = 255  # known in half of the second frame
    part = Part("msrs", "dev", False, "same set")
    part.frames = [compare(scene(r, label), estimate(shown, 14), 1) for r in (cut_off, real)]
    sky = part.by_class(0)
    assert sky is not None and sky["inside"].value == 100 and sky["error"].value > 50
    inside = part.inside()
    assert inside is not None and inside[-1] == 1


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write three sets: pairs of which the bundle knows some, and one without a thermal image."""
    rng = np.random.default_rng(0)
    for split, numbers in (("train", (1, 2, 3)), ("dev", (7, 40))):
        folder = tmp_path / "msrs" / split
        for number in numbers:
            for light, name in ((1, f"{number:05}D"), (6, f"{number:05}N")):
                image = rng.integers(0, 256, (40, 60, 3), np.uint8) // light
                dataset_files.picture(folder / "vi" / f"{name}.png", image)
                dataset_files.picture(folder / "ir" / f"{name}.png", image[..., 1])
                label = np.full((40, 60), 2, np.uint8)
                dataset_files.picture(folder / "pseudo_label" / f"{name}.png", label)
                dataset_files.text(folder / "boxes_infrared" / f"{name}.txt", "")
    for name in ("a1", "a2"):
        image = rng.integers(60, 256, (40, 60, 3), np.uint8)
        dataset_files.picture(tmp_path / "roadscene" / "dev" / "vi" / f"{name}.png", image)
        dataset_files.picture(tmp_path / "roadscene" / "dev" / "ir" / f"{name}.png", image[..., 0])
    dataset_files.camvid_repacked(tmp_path)
    return tmp_path


def trained_bundle(folder: Path) -> Path:
    """Return a bundle that was trained on MSRS, and states its uncertainty."""
    path = tiny_bundle.build(folder, tiny_bundle.UNCERTAINTY)
    manifest = Bundle.load(path).manifest
    known = manifest.provenance.model_copy(update={"data": TRAINED})
    write_manifest(path, manifest.model_copy(update={"provenance": known}))
    return path


def test_the_page_tells_seen_frames_from_unseen_sets(data: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n\n{START}\nold\n{END}\n\nmy words\n")
    sets = [f"--data={name}-repacked:{data / name}" for name in ("msrs", "roadscene")]
    own = trained_bundle(tmp_path / "own")
    other = tiny_bundle.build(tmp_path / "other")
    options = ("--page", page, "--frames", 2, "--backend", "onnxruntime")
    code, output = train("thermal", "--bundle", own, "--other", other, *sets, *options)
    assert code == 0, output
    text = page.read_text()
    assert text.startswith("# Mine\n") and text.endswith("my words\n") and "old" not in text
    assert "nan" not in text
    first, second = text.split("**tiny")[1:3]
    assert "| msrs train, night | trained on | 2 |" in first, "two of the three frames"
    assert "| msrs dev, day | other frames of a set trained on | 2 |" in first
    assert "| roadscene dev, day | of a set never seen | 2 |" in first
    table = second.split("*Frames*")[0]
    assert "| msrs dev, day | of a set never seen | 2 |" in table and "trained on" not in table
    assert "| person | 100.0 |" in text and "| msrs, night | 30 to 99 | 1 |" in text
    for name in ("sets", "classes", "coverage", "frames"):
        assert f"](page_{name}.png)" in text
        assert 5_000 < (tmp_path / f"page_{name}.png").stat().st_size < 150_000


def test_what_cannot_be_measured_is_told_before_anything_is_written(
    data: Path, tmp_path: Path
) -> None:
    bundle, page = trained_bundle(tmp_path / "own"), tmp_path / "page.md"
    code, output = train(
        "thermal", "--bundle", bundle, f"--data=camvid-repacked:{data / 'camvid'}", "--page", page
    )
    assert code == 2 and "as camvid-repacked has no thermal images" in output
    page.write_text("# Mine\n")
    sets = f"--data=roadscene-repacked:{data / 'roadscene'}"
    code, output = train("thermal", "--bundle", bundle, sets, "--page", page)
    assert code == 2 and f"lacks the lines '{START}' and '{END}'" in output
    assert page.read_text() == "# Mine\n"


def test_what_stands_around_the_section_of_a_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<a>\nold\n<b>\nbelow: `<a>` and `<b>`\n")
    write_page(page, "<a>", "<b>", "new")
    assert page.read_text() == "above\n<a>\n\nnew\n\n<b>\nbelow: `<a>` and `<b>`\n"
    for content, message in (
        (b"<b> and <a>", "lacks the lines '<a>' and '<b>', in this order"),
        ("<a> Café <b>".encode("latin-1"), "page.md' is not UTF-8"),
    ):
        page.write_bytes(content)
        with pytest.raises(TrainingError, match=message):
            write_page(page, "<a>", "<b>", "new")
        assert page.read_bytes() == content


def test_two_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    sources = [Source("folder", tmp_path / place / "pairs") for place in "ab"]
    assert list(by_name(sources)) == ["pairs", "pairs, folder 2"]
