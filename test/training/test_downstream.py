# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The downstream comparison with a tiny SegFormer, and its scores by hand."""

import json
import sys
from pathlib import Path

import cv2
import dataset_files
import numpy as np
import pytest
from test_score import scene

import tiny_bundle
from cli_run import train
from magicfuse_training.data.classes import CLASSES, MFNET_CLASSES
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.mix import Source
from magicfuse_training.downstream.inputs import INPUTS, InputSet, Limits
from magicfuse_training.downstream.table import END, START, set_scores
from magicfuse_training.metrics import bootstrap
from magicfuse_training.metrics.restoration import strength_of
from magicfuse_training.metrics.segmentation import Confusion

HEIGHT, WIDTH = 40, 60
STEPS = 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.build(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of msrs: two frames by day, two at night."""
    root = tmp_path_factory.mktemp("sets")
    for split, names in (("train", ("1D", "2N")), ("dev", ("3D", "4N"))):
        for name in names:
            write(root / "msrs" / split, name, "pseudo_label", [0, 1, 2, 8, 255])
            dataset_files.text(root / "msrs" / split / "boxes_infrared" / f"{name}.txt", "")
            dataset_files.picture(root / "msrs" / split / "ir" / f"{name}.jpg", scene(0)[..., 0])
    return root


def write(folder: Path, name: str, labels: str, ids: list[int]) -> None:
    dataset_files.picture(folder / "vi" / f"{name}.jpg", scene(sum(map(ord, name))))
    label = np.tile(np.array(ids, np.uint8).repeat(WIDTH // len(ids)), (HEIGHT, 1))
    dataset_files.picture(folder / labels / f"{name}.png", label)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the network to one narrow layer at each scale, and draw few intervals."""
    pytest.importorskip("transformers", reason="downstream needs transformers")
    from magicfuse_training.downstream import segformer

    tiny = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4}
    monkeypatch.setattr(bootstrap, "RESAMPLES", 10)
    for name, value in {**tiny, "decoder_hidden_size": 8}.items():
        monkeypatch.setitem(segformer.MIT_B0, name, value)


def run(bundle: Path, sets: Path, folder: Path, *more: object) -> tuple[int, str]:
    data = f"--data=msrs-repacked:{sets / 'msrs'}"
    size = ("--steps", STEPS, "--batch", 2, "--seeds", 1, "--crop", 32, 32)
    given = ("--bundle", bundle, data, "--run", folder, "--backend", "onnxruntime", *size, *more)
    return train("downstream", *given)


def weights(folder: Path) -> dict[Path, object]:
    from magicfuse_training.stages.checkpoint import read_checkpoint

    return {
        path.relative_to(folder): {k: v.tolist() for k, v in read_checkpoint(path)["model"].items()}
        for path in folder.rglob("last.pt")
    }


@pytest.mark.usefixtures("small")
def test_an_interrupted_comparison_ends_like_one_that_was_not(
    bundle: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from magicfuse_training.downstream import inputs, segformer

    seen: dict[str, list[object]] = {}
    batch_of, confusions = segformer.batch_of, segformer.confusions

    def noted(files: segformer.Files, *rest: object) -> object:
        images, labels = batch_of(files, *rest)
        kind = files[0][0].relative_to(tmp_path / "whole" / "inputs" / "msrs" / "train").parts[0]
        seen.setdefault(kind, []).append((rest, labels.tolist()))
        assert images.shape == (2, 32, 32, 3)
        return images, labels

    monkeypatch.setattr(segformer, "batch_of", noted)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    code, output = run(bundle, sets, tmp_path / "whole", "--page", page)
    assert code == 0, output
    # All inputs had the same steps with the same crops.
    first, *others = (seen[kind] for kind in INPUTS)
    assert len(first) == STEPS and all(other == first for other in others)
    text = (tmp_path / "whole" / "downstream.md").read_text()
    assert page.read_text() == f"before\n{START}\n\n{text}\n{END}\nafter\n"
    for row in (*INPUTS, *MFNET_CLASSES[:3]):
        assert f"\n| {row} |" in text, row
    assert "| input | mIoU | against degraded | dark | haze | night |" in text
    assert "**msrs**: 2 training and 2 held-out frames, pseudo labels." in text

    # Ctrl-C in the first step of the third network, a kill among the inputs and one in a score.
    class Asked(segformer.Interrupt):
        count = 0

        def __enter__(self) -> segformer.Interrupt:
            Asked.count += 1
            self.asked = Asked.count == 3
            return self

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    stopped = tmp_path / "stopped"
    monkeypatch.setattr(segformer, "batch_of", batch_of)
    for module, name, stand_in in (
        (inputs, "degraded", lambda image, kind, _: killed() if kind == "haze" else image),
        (segformer, "Interrupt", Asked),
        (segformer, "confusions", killed),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stand_in)
            if name == "confusions":
                patch.setattr("magicfuse_training.downstream.comparison.confusions", killed)
            code, output = run(bundle, sets, stopped)
        assert code == 130, output
        for path in (stopped / "inputs").rglob("*/degraded/*/*.png"):
            if name == "degraded":
                path.unlink()  # the stand-in's
    assert segformer.confusions is confusions
    assert run(bundle, sets, stopped)[0] == 0
    assert weights(stopped) == weights(tmp_path / "whole")
    for name in ("downstream.json", "downstream.md"):
        assert (stopped / name).read_text() == (tmp_path / "whole" / name).read_text()

    code, output = run(bundle, sets, stopped, "--steps", 3)
    assert code == 2 and "training.steps 2, and now has 3" in output
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("last.pt")}
    assert run(bundle, sets, stopped, "--seeds", 2)[0] == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    scores = json.loads((stopped / "downstream.json").read_text())["sets"]["msrs"]["inputs"]
    assert all(len(row["by_seed"]) == 2 for row in scores.values())


def test_images_are_what_the_runtime_makes_of_the_degraded_frame(
    bundle: Path, sets: Path, tmp_path: Path
) -> None:
    from magicfuse_ros.backends import select
    from magicfuse_ros.bundle import Bundle
    from magicfuse_ros.fuser import Fuser
    from magicfuse_training.data.files import read_image, read_label
    from magicfuse_training.metrics.restoration import degraded

    fuser = Fuser(Bundle.load(bundle), select("onnxruntime"))
    some = InputSet(
        Source("msrs-repacked", sets / "msrs"), [], tmp_path, Limits(("haze",), width=30)
    )
    some.make(fuser)
    day, night = some.samples["test"]
    assert (day.condition, night.condition) == ("haze", "night")
    for sample in (day, night):
        clean = read_image(sample.record.visible)
        image = degraded(clean, "haze", 0) if sample is day else clean
        fused = fuser(image)
        for kind, expected in zip(
            INPUTS, (clean, image, fused.restored, fused.mag_image), strict=True
        ):
            assert expected is not None
            half = cv2.resize(expected, (30, 20), interpolation=cv2.INTER_AREA)
            assert (read_image(some.image("test", kind, sample)) == half).all(), kind
        label = read_label(some.label("test", sample), some.labels)
        assert label.shape == (20, 30) and set(np.unique(label)) == {0, 1, 2, 8, 255}
    assert not any(map(some.missing, ("train", "test")))


def test_conditions_and_strengths_are_spread_over_the_frames(tmp_path: Path) -> None:
    for split, count in (("train", 24), ("val", 3)):
        for i in range(count):
            for part in ("vi", "label"):
                dataset_files.text(tmp_path / split / part / f"{i:02}.png", "")
    source = Source("camvid-repacked", tmp_path)
    conditions = ("dark", "haze", "rain")
    one = InputSet(source, [], tmp_path, Limits(conditions, train_frames=12))
    assert one.frames("train") == 12 and one.frames("test") == 3
    assert one.classes == CLASSES and one.origin == "human"
    pairs = {(s.condition, strength_of(s.index)) for s in one.samples["train"]}
    assert pairs == {(c, s) for c in conditions for s in (0.5, 0.75, 1.0)}
    spread = [int(s.record.name) for s in one.samples["train"]]
    assert spread[0] == 0 and spread[-1] == 23 and max(np.diff(spread)) == 3
    assert [s.condition for s in one.samples["test"]] == [*conditions] * 3


def test_the_scores_of_a_known_case() -> None:
    def matrix(truth: list[int], predicted: list[int]) -> np.ndarray:
        confusion = Confusion(2)
        confusion.add(np.array([truth], np.uint8), np.array([predicted], np.uint8))
        return confusion.matrix

    right, half = matrix([0, 0, 1, 1], [0, 0, 1, 1]), matrix([0, 0, 1, 1], [0, 1, 1, 1])
    samples = [("a", "dark"), ("a", "haze")]
    found = set_scores(
        {
            "degraded": np.array([[half], [half]]),
            "restored": np.array([[right, half], [half, half]]),
        },
        samples,
        ("road", "car"),
    )["inputs"]
    of_half = (100 / 2 + 200 / 3) / 2
    of_both = (100 * 3 / 4 + 100 * 4 / 5) / 2  # the pixels of both conditions together
    assert found["degraded"]["by_seed"] == pytest.approx([of_half])
    assert found["restored"]["by_seed"] == pytest.approx([of_both, of_half])
    assert found["restored"]["miou_percent"].value == pytest.approx((of_both + of_half) / 2)
    assert found["restored"]["by_condition"]["dark"] == pytest.approx([100, of_half])
    assert found["restored"]["iou_percent"]["road"] == pytest.approx((75 + 50) / 2)
    # the second seed has no partner
    assert found["restored"]["against_degraded"].value == pytest.approx(of_both - of_half)


def test_a_set_that_nothing_can_be_learnt_from_is_told(tmp_path: Path) -> None:
    limits = Limits(("dark",))
    for kind, message in (
        ("llvip-repacked", "has no labels"),
        ("idd-repacked", "are groups of classes"),
        ("camvid-repacked", "has the splits train; scores need one of val"),
        ("camvid", "has the split 'all' alone"),
    ):
        root = tmp_path / kind
        dataset_files.WRITERS[kind](root)
        with pytest.raises(DataError, match=message):
            InputSet(Source(kind, root), [], tmp_path, limits)


def test_a_missing_extra_and_wrong_options_are_told_in_one_line(
    bundle: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "transformers" in sys.modules or _has_transformers():
        code, output = run(bundle, sets, tmp_path / "run", "--condition", "drak")
        assert code == 2 and "condition is 'drak'; did you mean 'dark'?" in output
        (tmp_path / "bare.md").write_text("no markers")
        code, output = run(bundle, sets, tmp_path / "run", "--page", tmp_path / "bare.md")
        assert code == 2 and "bare.md' lacks the lines" in output
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("segformer", "comparison"):
        monkeypatch.delitem(sys.modules, f"magicfuse_training.downstream.{name}", raising=False)
    monkeypatch.delattr("magicfuse_training.downstream.comparison", raising=False)
    code, output = run(bundle, sets, tmp_path / "run")
    expected = "error: downstream needs transformers: pip install './training[downstream]'"
    assert code == 2 and output == expected
    assert not (tmp_path / "run").exists()


def _has_transformers() -> bool:
    from importlib.util import find_spec

    return find_spec("transformers") is not None
