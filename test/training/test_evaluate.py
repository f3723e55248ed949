# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The evaluation, from files and other methods' images to a report, and its parts by hand."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_metrics import HUMAN, frame, fused
from test_score import names_of, write_sets

import tiny_bundle
from cli_run import train
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import FusedFrame
from magicfuse_training.data.classes import CLASSES
from magicfuse_training.data.errors import DataError
from magicfuse_training.metrics import paper
from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.frames import Labels
from magicfuse_training.metrics.light import LightByClass
from magicfuse_training.metrics.peers import Peer, read_fused
from magicfuse_training.metrics.plots import plot_conditions
from magicfuse_training.metrics.ranking import Ranking
from magicfuse_training.metrics.report import END, START
from magicfuse_training.metrics.restoration import Structure, degraded
from magicfuse_training.metrics.rows import (
    CLIPPED,
    INPUT,
    LOWER_TAUS,
    MAG_IMAGE,
    MEAN,
    OWN,
    RESTORED,
    Rows,
    clipped_heat,
    mean_image,
    usual_heat,
)
from magicfuse_training.metrics.table import table_of_images
from magicfuse_training.preset import load_preset

CONDITIONS = ["clean", "dark", "haze", "rain", "noise"]
PERSON = CLASSES.index("pedestrian")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny bundle with classes of its own: road, person and sky."""
    return tiny_bundle.build(tmp_path_factory.mktemp("bundle") / "tiny", tiny_bundle.UNCERTAINTY)


@pytest.fixture(scope="module")
def evaluated(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder of a report on two sets, and that of the inputs, used as a method."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_sets(folder)
    sets = ("--bundle", bundle, *names_of(folder, "camvid", "msrs"), "--every", "3")
    options = ("--backend", "onnxruntime", "--out", folder / "report")
    code, output = train("evaluate", *sets, *options, "--inputs", folder / "theirs")
    assert code == 0 and "16 inputs in" in output, output
    assert not (folder / "report").exists()
    page = folder / "docs" / "page.md"
    page.parent.mkdir()
    code, output = train(
        "evaluate", *sets, *options, "--fused", f"theirs={folder / 'theirs'}", "--page", page
    )
    assert code == 0 and "evaluation.html" in output, output
    return folder / "report", folder / "theirs"


def test_every_condition_is_scored_with_what_is_known(evaluated: tuple[Path, Path]) -> None:
    sets = json.loads((evaluated[0] / "evaluation.json").read_text())["sets"]
    assert list(sets) == ["camvid val", "msrs dev"]
    for condition in CONDITIONS:
        camvid, msrs = sets["camvid val"][condition], sets["msrs dev"][condition]
        for scores in (camvid, msrs):
            assert 0 < scores["ssim_restored"][0] <= 1 and "psnr_restored_db" in scores
        assert len(camvid["miou_percent"]) == 3 and len(camvid["reliability"]["right"]) == 15
        assert "people" in msrs and "thermal" in msrs and "Qabf" in msrs["images"][MAG_IMAGE]
        assert "Qabf" not in camvid["images"][MAG_IMAGE], "it has no thermal images"
        for images in (camvid["images"], msrs["images"]):
            of_light = [row for row in images if row in LOWER_TAUS]
            assert [row for row in images if row not in of_light] == [*OWN, "theirs"]
            assert images["theirs"] == images[INPUT], "the inputs took part as another method"
    night = sets["msrs dev"]["night"]
    assert "PSNR to clean" not in night["images"][MAG_IMAGE] and "ssim_restored" not in night
    assert night["images"]["theirs"]["EN"] == night["images"][INPUT]["EN"]
    assert "both" in sets["msrs dev"]


def test_the_report_is_one_file_with_plots_and_frames(evaluated: tuple[Path, Path]) -> None:
    page = (evaluated[0] / "evaluation.html").read_text()
    assert "://" not in page and page.count("<img") == page.count('src="data:image/')
    assert page.count("image/jpeg") == 5 + 6, "frames of every condition of both sets"
    assert re.search(r"\d <small>\S+ to \S+</small></td>", page), "an interval in small print"
    for about in ("by condition", "over its confidence", "IoU by class", "Images side by side"):
        assert about in page
    text = (evaluated[0] / "evaluation.md").read_text()
    assert "| theirs |" in text and f"| {CLIPPED} |" in text and "nan" not in text
    assert "### msrs dev, night: images side by side" in text


def test_a_page_for_the_documentation_has_plots_and_no_frames(
    evaluated: tuple[Path, Path], bundle: Path, tmp_path: Path
) -> None:
    folder = evaluated[0].parent / "docs"
    text = (folder / "page.md").read_text()
    assert text.startswith(START) and text.endswith(f"{END}\n")
    shown = set(re.findall(r"!\[[^]]+\]\((.+?)\)", text))
    assert {"page_camvid_val_conditions.png", "page_msrs_dev_images.png"} < shown
    assert shown | {"page.md"} == {path.name for path in folder.iterdir()}, "and nothing else"
    report = (evaluated[0] / "evaluation.md").read_text()
    assert set(report.split("\n\n")[1:]) <= {*text.split("\n\n"), report.split("\n\n")[-1]}
    (tmp_path / "page.md").write_text("# Mine\n")
    sets = names_of(evaluated[0].parent, "camvid")
    options = ("--out", tmp_path / "out", "--page", tmp_path / "page.md")
    code, output = train("evaluate", "--bundle", bundle, *sets, *options)
    assert code == 2 and f"lacks the lines '{START}' and '{END}'" in output


def test_the_paper_is_beside_what_is_scored_alike_in_its_scale(
    evaluated: tuple[Path, Path],
) -> None:
    sets = json.loads((evaluated[0] / "evaluation.json").read_text())["sets"]
    text = (evaluated[0] / "evaluation.md").read_text().split(f"## {paper.TITLE}")[1]
    images, masks = text.split("### Masks")
    assert "| paper: MFNet test | MagicFuse, visible alone | 7.29 | 4.13 | 63.49 |" in images
    ours = next(line for line in images.splitlines() if f"msrs dev, dark | {MAG_IMAGE}" in line)
    scores = sets["msrs dev"]["dark"]["images"][MAG_IMAGE]
    shown = [float(cell.split(" (")[0]) for cell in ours.strip("| ").split(" | ")[2:]]
    expected = [scores["EN"], scores["MI"], scores["PSNR"], scores["SSIM"], scores["Qabf"]]
    values = np.array([value for value, _, _ in expected])
    assert shown == pytest.approx(values * [1, 1, 1, 0.5, 1] + [0, 0, 48.13, 0, 0], abs=0.006)
    assert "camvid" not in images, "it has no thermal images"
    assert "| camvid val, haze | the bundle, labels human |" in masks and paper.SOURCE in masks
    assert paper.tables_beside_paper({"sets": {"plain": {"clean": {"frames": 1}}}}) == {}


def test_an_interval_of_few_frames_may_lie_beside_its_score() -> None:
    beside = {"dark": {"psnr_input_db": Figure(1.0, 1.0 + 1e-12, 2.0)}}
    assert plot_conditions(beside) is not None


def test_a_method_that_cannot_take_part_is_told(
    evaluated: tuple[Path, Path], bundle: Path, tmp_path: Path
) -> None:
    write_sets(tmp_path)
    given = ("--bundle", bundle, *names_of(tmp_path, "camvid"), "--out", tmp_path / "out")
    for option, message in (
        ("theirs", "fused is 'theirs'; expected NAME=DIR"),
        (f"MagImg={tmp_path}", "'MagImg' is the name of another row"),
        (f"theirs={tmp_path / 'no'}", "no' does not exist"),
        (f"theirs={tmp_path}", "holds no fused image of 'theirs'; expected '0.png', or 'dark/"),
        # the inputs cover every third frame, and all are scored
        (f"theirs={evaluated[1]}", "3 of the 5 frames of camvid val, clean, are missing: 1, 2, 4"),
    ):
        code, output = train("evaluate", *given, "--fused", option)
        assert code == 2 and message in output, output
    assert not (tmp_path / "out").exists()
    taken = shutil.copytree(evaluated[1], tmp_path / "small")
    for path in taken.glob("camvid*/clean/*"):
        cv2.imwrite(str(path), np.zeros((4, 6, 3), np.uint8))
    code, output = train("evaluate", *given, "--every", "3", "--fused", f"theirs={taken}")
    assert code == 2 and "is 6x4; expected 60x40, the size of frame '0'" in output


def test_fused_images_without_a_condition_are_of_frames_as_they_are(tmp_path: Path) -> None:
    peer = Peer("x", tmp_path)
    assert peer.files("msrs dev", "clean", ["a"], []) == {}
    for place in ("a.png", "dark/a.png", "msrs dev/haze/a.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / place), np.full((16, 16), 7, np.uint8))
    for condition, place in (
        ("clean", "a.png"),
        ("night", "a.png"),
        ("dark", "dark/a.png"),
        ("haze", "msrs dev/haze/a.jpg"),
    ):
        assert peer.files("msrs dev", condition, ["a"], ["z"]) == {"a": tmp_path / place}
    assert peer.files("msrs dev", "rain", ["a"], []) == {} == peer.files("other", "haze", ["a"], [])
    with pytest.raises(DataError, match="1 of the 2 frames of msrs dev, clean, are missing: b"):
        peer.files("msrs dev", "clean", ["a", "b"], [])
    cv2.imwrite(str(tmp_path / "dark" / "b.png"), np.full((16, 16), 7, np.uint8))
    with pytest.raises(DataError, match="were made with another --every: it also decides how"):
        peer.files("msrs dev", "dark", ["a"], ["b"])
    image = read_fused(tmp_path / "a.png", frame())
    assert image.shape == (16, 16, 3) and (image == 7).all()
    half = frame(visible=np.zeros((16, 32, 3), np.uint8))
    assert read_fused(tmp_path / "a.png", half, width_factor=2).shape == (16, 32, 3)


def sure(image: np.ndarray, **changes: np.ndarray | None) -> FusedFrame:
    """Return a frame whose outputs show one image, cold, surely of class 0; and its changes."""
    flat = np.zeros(image.shape[:2], np.uint8)
    images = {"restored": image, "mag_image": image, "confidence": flat + 255}
    others = dict.fromkeys(("thermal_estimate", "thermal_uncertainty", "mask"), flat)
    return fused(**{**images, **others, **changes})


def test_the_rows_beside_mag_image_by_hand() -> None:
    restored = np.full((2, 2, 3), 100, np.uint8)
    estimate = np.array([[0, 101], [60, 60]], np.uint8)
    assert mean_image(restored, estimate)[..., 0].tolist() == [[50, 101], [80, 80]]
    heat = usual_heat()
    mask = np.array([[PERSON, PERSON], [PERSON, 3]], np.uint8)
    warmth = np.array([[0, 255], [60, 255]], np.uint8)
    outputs = sure(restored, thermal_estimate=warmth, thermal_uncertainty=None, mask=mask)
    of = partial(clipped_heat, heat=heat, thermal=[PERSON])
    gained = of(outputs, night=False, tau=heat.middle_tau)[..., 0].astype(int) - 100
    warm = heat.gain * (60 / 255 - heat.warm) * 255
    expected = [[0, heat.limit * 255], [min(warm, heat.limit * 255), 0]]
    assert np.allclose(gained, expected, atol=0.51), "cold, hottest; warm, and no person"
    unsure = sure(
        restored,
        thermal_estimate=np.full((2, 2), 40, np.uint8),
        thermal_uncertainty=np.full((2, 2), 20, np.uint8),
        mask=mask,
        confidence=np.full((2, 2), round(255 * (heat.unlit + heat.lit) / 2), np.uint8),
    )
    lit = of(unsure, night=True, tau=heat.middle_tau)[0, 0, 0] - 100
    surely = 40 / 255 - np.log(2) / np.sqrt(np.pi / 2) * 20 / 255
    gain = heat.at_night * heat.gain * (surely - heat.warm_at_night)
    assert lit == pytest.approx(255 * 0.5 * min(gain, heat.limit), abs=1.5), "half sure: half lit"
    surer = 1 - (1 - heat.middle_tau) * heat.unlit / ((heat.unlit + heat.lit) / 2)
    assert of(unsure, night=True, tau=surer)[0, 0, 0] == 100, "not sure enough for a higher tau"
    assert of(unsure, night=True, tau=0.0)[0, 0, 0] > 100 + lit


def test_rows_compare_with_the_frame_before_it_was_degraded(bundle: Path) -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (48, 48, 3), np.uint8)
    thermal = rng.integers(0, 100, (48, 48), np.uint8)
    thermal[16:32, 16:32] += 100  # a person
    box = (16, 16, 32, 32)
    known = {"thermal": thermal, "usual": thermal, "people": [box], "anybody": [box]}
    rows = Rows(Bundle.load(bundle).manifest, usual_heat())
    mag_image = np.repeat(thermal[..., None], 3, 2)
    outputs = sure(clean, mag_image=mag_image, thermal_estimate=thermal)
    rows.add(frame(visible=clean, **known), clean // 4, outputs)
    figures = rows.figures()
    assert figures[RESTORED]["PSNR to clean"].value == 60 > figures[INPUT]["PSNR to clean"].value
    assert figures[MAG_IMAGE]["person contrast"].value == pytest.approx(1), "it is the real one"
    assert figures[CLIPPED] == figures[RESTORED], "nobody is called a person"
    assert figures[MEAN]["PSNR"].value == max(row["PSNR"].value for row in figures.values())
    by_night = Rows(Bundle.load(bundle).manifest, usual_heat())
    by_night.add(frame(visible=clean, night=True), clean, outputs)
    assert set(by_night.figures()[MAG_IMAGE]) == {"EN", "SD", "SF"}, "no thermal image, no clean"


def test_light_is_told_by_the_class_that_it_lies_on() -> None:
    label = np.array([[0, 3, 3, PERSON, 255, 240]], np.uint8)
    restored = np.zeros((1, 6, 3), np.uint8)
    mag_image = restored + np.array([0, 30, 30, 30, 30, 30], np.uint8)[None, :, None]
    measure = LightByClass(CLASSES)
    assert measure.scores() == {} and measure.applies(frame(label))
    measure.add(frame(label), restored, fused(restored=restored, mag_image=mag_image))
    shares = measure.scores()["lit_percent"]
    lit = {"road": pytest.approx(200 / 3), "pedestrian": pytest.approx(100 / 3)}
    assert shares == dict.fromkeys(CLASSES, 0) | lit and list(shares) == list(CLASSES)


def test_frames_are_ranked_by_what_is_known_of_most() -> None:
    ranking = Ranking(len(CLASSES))
    image = np.zeros((16, 16, 3), np.uint8)
    for i, right in enumerate((4, 16, 0, 8)):
        label = np.full((16, 16), 3, np.uint8)
        mask = label.copy()
        mask[right:] = 1
        known = frame(label, HUMAN, name=f"f{i}", index=i)
        ranking.add(known, image, fused(mask=mask, restored=image, mag_image=image))
    ranking.add(frame(name="other"), image, fused(mask=mask, restored=image, mag_image=image))
    chosen = ranking.chosen()
    assert [(place, r.name, r.value) for place, r in chosen.items()] == [
        ("best", "f1", 100), ("median", "f0", 25), ("worst", "f2", 0),
    ]  # fmt: skip
    assert not ranking.applies(frame(night=True)) and Ranking(11).chosen() == {}
    alone = Ranking(len(CLASSES))
    alone.add(known, image, fused(mask=mask, restored=image, mag_image=image))
    assert list(alone.chosen()) == ["best"], "no frame is shown twice"


def test_noise_keeps_the_light_and_its_structure_is_what_is_lost() -> None:
    clean = np.full((180, 180, 3), 120, np.uint8)
    clean[60:120, 60:120] = 60
    noisy = degraded(clean, "noise", 2)
    assert abs(float(noisy.mean()) - float(clean.mean())) < 3 < float(noisy[:50].std())
    assert (noisy == degraded(clean, "noise", 2)).all(), "the same in every run"
    measure = Structure()
    measure.add(frame(visible=clean), noisy, fused(restored=clean))
    scores = measure.scores()
    assert scores["ssim_restored"].value == pytest.approx(1)
    assert scores["ms_ssim_restored"].value == pytest.approx(1)
    assert scores["ssim_input"].value < 0.9 and scores["ms_ssim_input"].value < 0.999


def test_rows_say_where_the_light_of_both_lit_images_falls(bundle: Path) -> None:
    classes = load_preset("nano").classes
    manifest = Bundle.load(bundle).manifest.model_copy(update={"classes": classes})
    person = next(c.id for c in classes if c.name == "pedestrian")
    rider = next(c.id for c in classes if c.name == "bicyclist")
    label = np.zeros((48, 48), np.uint8)
    label[:8, :4], label[:8, 4:8] = person, rider
    restored = np.full((48, 48, 3), 100, np.uint8)
    mag_image = restored.copy()
    mag_image[:8, 2:6] += 30  # half of each
    mag_image[40:, 40:44] += 30  # as much elsewhere
    hot = np.full((48, 48), 200, np.uint8)
    # The mask finds both, so the formula lights them up.
    outputs = sure(restored, mag_image=mag_image, thermal_estimate=hot, mask=label)
    for labels, known in ((HUMAN, True), (Labels("pseudo"), False)):
        rows = Rows(manifest, usual_heat())
        rows.add(frame(label, labels, visible=restored), restored // 2, outputs)
        figures = rows.figures()
        assert "light recall" not in figures[RESTORED]
        assert ("light recall" in figures[MAG_IMAGE]) == known
        if known:
            for row, scores in ((MAG_IMAGE, (0.5, 0.5)), (CLIPPED, (1, 1))):
                found = [figures[row][f"light {name}"].value for name in ("precision", "recall")]
                assert found == pytest.approx(scores)
            assert {"light precision", "light recall"} <= set(table_of_images(figures).headings)


def test_the_formula_lights_up_what_the_mask_is_less_sure_of_at_a_lower_tau(bundle: Path) -> None:
    classes = load_preset("nano").classes
    changed = {"classes": classes, "tau": 0.7}
    manifest = Bundle.load(bundle).manifest.model_copy(update=changed)
    label = np.zeros((48, 48), np.uint8)
    label[:8, :4] = next(c.id for c in classes if c.name == "pedestrian")
    restored = np.full((48, 48, 3), 100, np.uint8)
    hot, unsure = np.full((48, 48), 200, np.uint8), np.full((48, 48), 100, np.uint8)
    outputs = sure(restored, thermal_estimate=hot, mask=label, confidence=unsure)
    rows = Rows(manifest, usual_heat())
    rows.add(frame(label, HUMAN, visible=restored), restored // 2, outputs)
    recall = {row: scores.get("light recall") for row, scores in rows.figures().items()}
    assert recall[CLIPPED].value == recall[MAG_IMAGE].value == 0
    assert [recall[row].value for row in LOWER_TAUS] == [1, 1]
    manifest = manifest.model_copy(update={"tau": 0.4})
    rows = Rows(manifest, usual_heat())
    rows.add(frame(label, HUMAN, visible=restored), restored // 2, outputs)
    assert [row in rows.figures() for row in LOWER_TAUS] == [False, True], "0.5 is not lower"
