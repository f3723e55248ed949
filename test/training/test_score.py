# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The score command, from files to tables, and small scores against known cases."""

import json
import shutil
from pathlib import Path

import cv2
import dataset_files
import numpy as np
import pytest

from cli_run import train
from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.commands import score as score_command
from magicfuse_training.data.classes import CLASSES, MFNET_CLASSES
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.mix import Source
from magicfuse_training.data.scenes import usual_gain
from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.frames import Frames, split_to_score
from magicfuse_training.metrics.people import contrast
from magicfuse_training.metrics.restoration import degraded, strength_of
from magicfuse_training.metrics.score import as_json, camvid_label, open_sets
from magicfuse_training.metrics.table import END, START, card_tables, read_card, set_tables
from magicfuse_training.model import MagicFuse

HEIGHT, WIDTH = 40, 60


def test_masks_of_camvid_are_scored_in_the_ids_of_the_bundle(tmp_path: Path) -> None:
    dataset_files.camvid_repacked(tmp_path)
    for names, ids in ((CLASSES, [8, 9, 10, 0]), (MFNET_CLASSES, [1, 2, 3, 0])):
        assert camvid_label(tmp_path, "train", "0001TP_006690", names)[0, :4].tolist() == ids


def test_contrast_is_the_box_minus_its_ring_without_other_people() -> None:
    image = np.full((60, 60), 10, np.uint8)
    image[20:40, 20:30] = 110
    image[20:40, 32:40] = 250  # a second person stands in the ring
    box, other = (20, 20, 30, 40), (32, 20, 40, 40)
    assert contrast(image, box, [box, other]) == pytest.approx(100)
    with_other = contrast(image, box, [box])
    assert with_other is not None and with_other < 100
    assert contrast(image, (0, 0, 60, 60), [(0, 0, 60, 60)]) is None


def test_conditions_are_those_of_every_run() -> None:
    image = np.full((20, 30, 3), 120, np.uint8)
    assert (degraded(image, "clean", 4) == image).all()
    assert (degraded(image, "dark", 4) == degraded(image, "dark", 4)).all()
    assert degraded(image, "dark", 2).mean() < degraded(image, "dark", 0).mean()  # severe, mild
    assert [strength_of(i) for i in range(4)] == [0.5, 0.75, 1.0, 0.5]


def scene(seed: int, width: int = WIDTH) -> np.ndarray:
    shape = np.random.default_rng(seed).integers(40, 256, (5, 6, 3), np.uint8)
    return cv2.resize(shape, (width, HEIGHT))


def write_sets(root: Path) -> None:
    """Write held-out frames of sets with different labels, and of one without any."""
    rng = np.random.default_rng(0)
    people = np.tile(np.array([0, 1, 3, 9, 10], np.uint8).repeat(WIDTH // 5), (HEIGHT, 1))
    for i in range(5):
        dataset_files.picture(root / "camvid" / "val" / "vi" / f"{i}.jpg", scene(i))
        dataset_files.picture(root / "camvid" / "val" / "label" / f"{i}.png", people)
        squeezed = scene(i, WIDTH // 2)
        dataset_files.picture(root / "cityscapes" / "dev" / "vi" / f"{i}.jpg", squeezed)
        dataset_files.picture(root / "cityscapes" / "dev" / "label" / f"{i}.png", people[:, ::2])
    groups = rng.integers(0, 7, (HEIGHT, WIDTH), np.uint8)
    dataset_files.picture(root / "idd" / "dev" / "vi" / "a.jpg", scene(5))
    dataset_files.picture(root / "idd" / "dev" / "group" / "a.png", groups)
    for stem, dark in (("1D", 1), ("2N", 6), ("3N", 6)):
        folder = root / "msrs" / "dev"
        dataset_files.picture(folder / "vi" / f"{stem}.jpg", scene(6) // dark)
        dataset_files.picture(folder / "ir" / f"{stem}.jpg", scene(7)[..., 0])
        pseudo = np.array([0, 1, 2, 3], np.uint8).repeat(WIDTH // 4)
        dataset_files.picture(folder / "pseudo_label" / f"{stem}.png", np.tile(pseudo, (HEIGHT, 1)))
        for kind in ("infrared", "visible"):
            box = "0 0.5 0.5 0.2 0.4\n" if kind == "infrared" else "0 0.1 0.5 0.1 0.4\n"
            dataset_files.text(folder / f"boxes_{kind}" / f"{stem}.txt", box)
    coarse = np.full((HEIGHT, WIDTH), 3, np.uint8)
    coarse[:20], coarse[0] = 1, 255
    dataset_files.picture(root / "msrs" / "dev" / "coarse_label" / "2N.png", coarse)
    for name, image in (("a", scene(8)), ("b", scene(9))):
        dataset_files.picture(root / "roadscene" / "dev" / "vi" / f"{name}.jpg", image)
        dataset_files.picture(root / "roadscene" / "dev" / "ir" / f"{name}.jpg", image[..., 1])
    dataset_files.picture(root / "plain" / "vi" / "a.jpg", scene(10))


def names_of(root: Path, *names: str) -> list[str]:
    kinds = {"plain": "folder"}
    return [f"--data={kinds.get(n, f'{n}-repacked')}:{root / n}" for n in names]


@pytest.fixture(scope="module")
def scored(
    exported: tuple[MagicFuse, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, dict]:
    """Return a recorded bundle's folder, the printed text and the JSON of all the sets."""
    folder = tmp_path_factory.mktemp("scored")
    bundle = Path(shutil.copytree(exported[1], folder / "bundle"))
    (bundle / "MODEL_CARD.md").write_text(f"before\n\n{START}\nold\n{END}\n\nafter\n")
    write_sets(folder / "data")
    sets = names_of(folder / "data", "camvid", "cityscapes", "idd", "msrs", "roadscene", "plain")
    options = ("--backend", "onnxruntime", "--json", folder / "scores.json", "--record")
    code, output = train("score", "--bundle", bundle, *sets, *options)
    assert code == 0, output
    return bundle, output, json.loads((folder / "scores.json").read_text())


def test_every_set_is_scored_for_what_it_knows(scored: tuple[Path, str, dict]) -> None:
    sets = scored[2]["sets"]
    assert list(sets) == ["camvid val", "cityscapes dev", "idd dev", "msrs dev", "roadscene dev",
                          "plain"]  # fmt: skip
    days, restored = ["clean", "dark", "haze"], "psnr_restored_db"
    for name, some in sets.items():
        for condition in days:
            value, low, high = some[condition][restored]
            assert 0 < low <= value <= high <= 60, (name, condition)
        assert ("night" in some) == (name == "msrs dev")
        assert some["clean"]["psnr_input_db"] == [60, 60, 60]
        assert "flicker_mag_image" in some["dark"] and "flicker_input" not in some["haze"]
    for name in ("camvid val", "cityscapes dev"):
        for condition in days:
            scores = sets[name][condition]
            assert scores["frames"] == 5 and scores["labels"] == "human"
            assert set(scores["iou_percent"]) == {
                "sky", "building", "road", "pedestrian", "bicyclist",
            }  # fmt: skip
            assert 0 <= scores["ece_percent"][0] <= 100 and "light_recall" in scores
            assert list(scores["light_by_tau"]) == ["0.3", "0.45", "0.6", "0.75", "0.9"]
            assert "thermal" not in scores
    idd = sets["idd dev"]["haze"]
    assert len(idd["group_percent"]) == 7 and "miou_percent" not in idd
    mean = np.mean(list(idd["group_percent"].values()))
    assert idd["right_group_percent"][0] == pytest.approx(mean, abs=1e-3)
    assert "light_by_tau" not in idd
    plain = sets["plain"]["clean"]
    others = {"psnr_input_db", "psnr_mag_image_db", "psnr_resized_db"}
    assert set(plain) == {"frames", restored, *others}


def test_pairs_are_scored_by_day_and_by_night(scored: tuple[Path, str, dict]) -> None:
    msrs, roadscene = scored[2]["sets"]["msrs dev"], scored[2]["sets"]["roadscene dev"]
    assert msrs["clean"]["labels"] == "pseudo" and "ece_percent" not in msrs["clean"]
    assert set(msrs["clean"]["iou_percent"]) == {"car", "pedestrian", "bicyclist"}
    night = msrs["night"]
    assert night["labels"] == "coarse by eye" and night["frames"] == 2
    assert set(night["iou_percent"]) == {"building", "road"}, "pseudo labels are left alone"
    assert night["called_road_percent"]["all"] == night["called_road_percent"]["building"]
    assert restored_is_missing(night)
    for part in (msrs["clean"], night):
        assert "correlation_estimate" in part["thermal"] and "person_contrast" in part["people"]
    assert "thermal" not in msrs["dark"] and "people" not in msrs["haze"]
    assert msrs["both"]["people"]["person_boxes"] == 3
    assert "people" not in roadscene["clean"] and "labels" not in roadscene["clean"]
    assert roadscene["clean"]["thermal"]["constant_of_best_psnr"]["level"] in range(24, 31)


def restored_is_missing(scores: dict) -> bool:
    return not any(key.startswith("psnr") for key in scores)


def test_scores_are_printed_and_recorded(scored: tuple[Path, str, dict]) -> None:
    bundle, output, scores = scored
    restored = scores["sets"]["camvid val"]["dark"]["psnr_restored_db"]
    shown = "{:.2f} ({:.2f} to {:.2f})".format(*restored)
    assert shown in output and "msrs dev" in output and "person contrast, MagImg" in output
    manifest = Bundle.load(bundle).manifest
    recorded = manifest.provenance.scores
    assert recorded["fingerprint"] == Bundle.load(bundle).fingerprint
    assert recorded["sets"]["camvid val"]["dark"]["psnr_restored_db"] == restored
    assert recorded["precision"] == "fp32" and recorded["every"] == 1
    text = json.dumps(recorded)
    assert '"iou_percent"' not in text and '"light_by_tau"' not in text
    card = (bundle / "MODEL_CARD.md").read_text()
    assert card.startswith("before") and card.endswith("after\n") and "old" not in card
    assert shown in card and read_card(bundle / "MODEL_CARD.md")[1] == "\n\nafter\n"
    tables = [part for part in card.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4, "all sets, by class, people, light over tau"
    columns = {len(line.split("|")) for line in tables[0].splitlines()}
    assert columns == {1 + 1 + 6 * 3 + 1 + 1}, "six sets by day in three conditions, and a night"
    assert "| right in the group living things, % |" in tables[1]
    assert "msrs dev, both" in tables[2] and "0.45" in tables[3]


def test_every_nth_frame_of_days_and_of_nights(tmp_path: Path) -> None:
    write_sets(tmp_path)
    frames = Frames(Source("camvid-repacked", tmp_path / "camvid"), CLASSES, every=2)
    assert [(f.name, f.index) for f in frames] == [("0", 0), ("2", 1), ("4", 2)]
    nights = Frames(Source("msrs-repacked", tmp_path / "msrs"), CLASSES, every=2)
    assert [(f.name, f.night) for f in nights] == [("1D", False), ("2N", True)]


def test_a_set_that_the_bundle_was_trained_on_is_called_so(tmp_path: Path) -> None:
    write_sets(tmp_path)
    (tmp_path / "camvid" / "val").rename(tmp_path / "camvid" / "all")
    sources = [Source("camvid-repacked", tmp_path / "camvid")]
    for split in ("all", "train"):  # "all" has the frames of every split
        known = [f"camvid-repacked, split {split}: 5 scenes"]
        assert list(open_sets(sources, CLASSES, 1, known)) == ["camvid (trained on)"]
    assert list(open_sets(sources, CLASSES, 1, ["fmb, split train: 5 scenes"])) == ["camvid"]
    own = [Source("folder", tmp_path / "camvid" / "all")]
    known = ["folder, split .: 5 scenes (your own)"]
    assert list(open_sets(own, CLASSES, 1, known)) == ["all (perhaps trained on)"]


def test_frames_have_their_own_size_with_square_pixels_and_the_usual_gain(tmp_path: Path) -> None:
    write_sets(tmp_path)
    frame = next(iter(Frames(Source("cityscapes-repacked", tmp_path / "cityscapes"), CLASSES)))
    assert frame.visible.shape == (HEIGHT, WIDTH, 3) and frame.label is not None
    assert frame.label.shape == (HEIGHT, WIDTH) and set(np.unique(frame.label)) == {0, 1, 3, 9, 10}
    for kind, gained in (("roadscene", True), ("msrs", False)):
        frame = next(iter(Frames(Source(f"{kind}-repacked", tmp_path / kind), CLASSES)))
        assert frame.thermal is not None and frame.usual is not None
        expected = usual_gain(frame.thermal) if gained else frame.thermal
        assert (frame.usual == expected).all() and frame.thermal.std() > 20
    assert frame.people == [(24, 12, 36, 28)], "of the infrared image"
    assert sorted(frame.anybody) == [(3, 12, 9, 28), (24, 12, 36, 28)]


def test_the_fuser_keeps_its_tau(scored: tuple[Path, str, dict], tmp_path: Path) -> None:
    from magicfuse_training.metrics.light import LightCurve

    fuser = Fuser(Bundle.load(scored[0]), select("onnxruntime"))
    own = fuser.tau
    write_sets(tmp_path)
    frame = next(iter(Frames(Source("camvid-repacked", tmp_path / "camvid"), CLASSES)))
    curve = LightCurve(fuser, CLASSES, (0.1, own, 0.8))
    curve.add(frame, frame.visible, fuser(frame.visible, curve.outputs))
    assert fuser.tau == own and list(curve.scores()["light_by_tau"]) == ["0.1", str(own), "0.8"]


def test_what_cannot_be_scored_is_told(exported: tuple[MagicFuse, Path], tmp_path: Path) -> None:
    write_sets(tmp_path)
    bundle = ("--bundle", exported[1])
    code, output = train("score", *bundle, f"--data=camwid:{tmp_path}")
    assert code == 2 and "data set is 'camwid'; expected one of folder, mfnet," in output
    code, output = train("score", *bundle, f"--data=msrs-repacked:{tmp_path / 'nowhere'}")
    assert code == 2 and "nowhere' does not exist" in output
    code, output = train("score", *bundle, *names_of(tmp_path, "plain"), "--record")
    assert code == 2 and "MODEL_CARD.md" in output
    (tmp_path / "trained" / "train" / "vi").mkdir(parents=True)
    with pytest.raises(DataError, match="has the splits train; scores need one of val, dev, test"):
        split_to_score(Source("camvid-repacked", tmp_path / "trained"))


def test_tables_leave_out_what_is_not_known_and_json_has_null() -> None:
    nothing = Figure(np.nan, np.nan, np.nan)
    day = {"frames": 2, "miou_percent": Figure(58.62, 55.1, 61.04), "light_precision": nothing}
    scores = {"sets": {"a val": {"kind": "folder", "clean": day, "night": {"frames": 1}}}}
    day["thermal"] = {"correlation_estimate": Figure(-0.002, -0.12, 0.1)}
    (table,) = set_tables(scores)
    assert table.headings == ["a val", "clean", "night"]
    assert table.rows == [
        ["frames", "2", "1"],
        ["mIoU, %", "58.6 (55.1 to 61.0)", ""],
        ["light: precision", "-", ""],
        ["thermal estimate: correlation", "0.00 (-0.12 to 0.10)", ""],
    ]
    assert list(card_tables(scores)) == [""]
    assert card_tables(scores)[""].headings == ["", "a val, clean", "a val, night"]
    assert as_json(day)["miou_percent"] == [58.62, 55.1, 61.04]
    assert as_json(day)["light_precision"] == [None, None, None]


def test_ctrl_c_leaves_the_scores_of_the_sets_that_are_done(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_one(fuser: Fuser, suite: object, frames: object, name: str) -> dict[str, object]:
        if name == "second":
            raise KeyboardInterrupt
        return {"kind": "folder", "clean": {"frames": 1, "psnr_restored_db": 30.0}}

    monkeypatch.setattr(score_command, "score_set", of_one)
    monkeypatch.setattr(score_command, "open_sets", lambda *_: {"first": None, "second": None})
    path = tmp_path / "scores.json"
    arguments = ("score", "--bundle", tiny_bundle, "--data", "folder:x", "--json")
    code, output = train(*arguments, path)
    assert code == 130 and "1 of 2 sets are scored" in output, output
    scores = json.loads(path.read_text())
    assert list(scores["sets"]) == ["first"] and scores["stopped"] == "interrupted"

    monkeypatch.setattr(score_command, "score_set", lambda *_: pytest.fail("it began"))
    code, output = train(*arguments, tmp_path)
    assert code == 2 and "is a folder; expected a file" in output
