# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""An adaptation from a folder of pictures to a bundle: resumed, shipped or rejected."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from test_make import write_preset
from training_process import small_crops

from cli_run import train
from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle, Manifest, Provenance, ThermalUncertainty, sha256
from magicfuse_ros.errors import MediaError
from magicfuse_ros.fuser import Fuser
from magicfuse_training.adaptation import check, labels
from magicfuse_training.adaptation import run as running
from magicfuse_training.adaptation.check import Figures, compare
from magicfuse_training.adaptation.config import AdaptConfig
from magicfuse_training.adaptation.run import Adaptation, Recording, adapt
from magicfuse_training.adaptation.stage import adaptation_loss, model_of, preset_of
from magicfuse_training.commands import adapt as command
from magicfuse_training.data.crops import Batch
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.runner import Budget
from magicfuse_training.stages.stage import to_device
from media_files import picture, write_picture

# Untrained networks are hardly confident and never agree with the mirrored image.
CONFIG = AdaptConfig(least=12, least_held_out=3, confident=0.116, labelled=0.0)
BUDGET = Budget(steps=3, batch=2, workers=0)
GOOD = Figures(10, 4, 99.0, 90.0, 91.0, 50.0, 52.0, 60.0, 65.0, 20.0, 20.1, 60.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    for i in range(14):
        write_picture(folder / f"{i}.png", picture(64, 96, seed=i))
    return folder


@pytest.fixture(scope="module")
def bundle(exported: tuple[MagicFuse, Path]) -> Bundle:
    return Bundle.load(exported[1])


@pytest.fixture(scope="module")
def start(pictures: Path, bundle: Bundle, small_preset: Preset) -> Callable[..., Adaptation]:
    return partial(
        adapt, Recording(pictures), bundle, small_preset, budget=BUDGET, config=CONFIG,
        backend="onnxruntime",
    )  # fmt: skip


class Killed(BaseException):
    """Stops a run like a signal: none of our handlers catches it."""


@pytest.fixture(scope="module")
def adapted(
    start: Callable[..., Adaptation], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Adaptation]:
    """Return the run and its result: it was killed during labelling, and before training."""
    folder = tmp_path_factory.mktemp("runs") / "adapted"
    made: list[Path] = []
    write = labels.write_png

    def write_two(path: Path, image: object) -> None:
        if len(made) == 2:
            raise Killed
        made.append(path)
        write(path, image)

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "write_png", write_two)
        with pytest.raises(Killed):
            start(folder=folder)
    label = folder / "data" / "train" / "label"
    first = {path: path.stat().st_mtime_ns for path in label.glob("*.png")}
    assert len(first) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "open_source", die)  # the frames are already saved
        patch.setattr(running, "train_stage", die)
        with pytest.raises(Killed):
            start(folder=folder)
    assert len(list(label.glob("*.png"))) == 10
    assert first.items() <= {p: p.stat().st_mtime_ns for p in label.glob("*.png")}.items()
    return folder, start(folder=folder)


def test_a_run_that_was_killed_twice_ends_with_a_bundle_and_a_record(
    adapted: tuple[Path, Adaptation], bundle: Bundle
) -> None:
    folder, result = adapted
    assert (result.selection.train, result.selection.held_out) == (10, 3)
    manifest = Bundle.load(folder / "bundle").manifest
    assert (manifest.name, manifest.preset) == ("small-adapted", "small")
    assert manifest.step_grids == bundle.manifest.step_grids
    made = manifest.provenance
    assert re.fullmatch(
        rf"adapted from small \(fingerprint {bundle.fingerprint[:12]}\) for \d\.\d minutes "
        r"with 10 unlabelled frames of 'drive\d+'",
        made.data[-1],
    )
    assert made.data[:-1] == ["three scenes"]
    assert set(made.training_minutes) == {"ikr", "adapt"}
    record = json.loads((folder / "adapt.json").read_text())
    assert (record["figures"]["frames"], record["figures"]["night"]) == (3, 0)
    assert record["frames"]["train"] == 10
    assert record["bundle"]["fingerprint"] == bundle.fingerprint
    assert record["misses"] == result.misses
    config = yaml.safe_load((folder / "adapt" / "config.yaml").read_text())["stage"]
    assert config["optimizer"]["learning_rate"] == CONFIG.learning_rate
    assert config["frozen_statistics"] is True


def test_only_what_the_thermal_estimate_does_not_follow_from_is_changed_and_by_a_share(
    adapted: tuple[Path, Adaptation], bundle: Bundle, small_preset: Preset
) -> None:
    folder, result = adapted
    assert result.figures.thermal == 60
    old = model_of(bundle, small_preset).state_dict()
    trained = torch.load(folder / "adapt" / "last.pt", weights_only=True)["ema"]
    new = model_of(result.bundle, small_preset).state_dict()
    changed = {k.split(".")[0] for k in old if not torch.equal(old[k], new[k])}
    assert changed == {"ikr", "mkf", "segmentation"}
    key = max(
        (k for k in old if k.startswith("mkf.segproj") and old[k].numel() < 1024),  # as float32
        key=lambda k: float((trained[k] - old[k]).abs().max()),
    )
    torch.testing.assert_close(new[key], old[key] + 0.6 * (trained[key] - old[key]))
    assert not torch.equal(trained[key], old[key])


def test_a_run_does_not_go_on_with_another_bundle_or_recording(
    adapted: tuple[Path, Adaptation], start: Callable[..., Adaptation], tmp_path: Path
) -> None:
    folder, _ = adapted
    message = re.escape(f"run '{folder}' was started with share 0.6, and now has 0.5")
    with pytest.raises(TrainingError, match=message):
        start(folder=folder, config=replace(CONFIG, share=0.5))
    shutil.copytree(folder / "data" / "dev", tmp_path / "other")
    with pytest.raises(TrainingError, match=r"started with recording .*, and now has .*other"):
        adapt(Recording(tmp_path / "other"), start.args[1], start.args[2], folder, BUDGET, CONFIG)


def test_a_recording_that_is_refused_leaves_the_run_free_for_another(
    start: Callable[..., Adaptation], bundle: Bundle, small_preset: Preset, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(MediaError, match="does not exist"):
        adapt(Recording(tmp_path / "nowhere"), bundle, small_preset, folder, BUDGET, CONFIG)
    with pytest.raises(TrainingError, match="14 usable frames of 14; expected at least 15"):
        start(folder=folder, config=replace(CONFIG, least=15))
    assert not list(tmp_path.rglob("*.*"))


def test_folders_of_something_else_are_left_alone(
    start: Callable[..., Adaptation], tmp_path: Path
) -> None:
    for name in ("data", "bundle"):
        kept = tmp_path / name / name / "mine.txt"
        kept.parent.mkdir(parents=True)
        kept.touch()
        with pytest.raises(TrainingError, match="is not of an adaptation; use another --run"):
            start(folder=tmp_path / name)
        assert kept.exists()


def test_the_target_of_masks_is_what_the_start_sees_in_the_frames_as_they_were(
    small_model: MagicFuse,
) -> None:
    batch = to_device(next(iter(small_crops(undegraded=True))), torch.device("cpu"))
    loss = adaptation_loss(small_model)

    def masks(batch: Batch) -> torch.Tensor:
        torch.manual_seed(0)
        return loss(small_model, batch)["segmentation"]

    before = masks(batch)
    for i in range(len(batch["seen"])):
        other = batch["seen"].clone()
        other[i] = 1 - other[i]
        assert masks(batch | {"seen": other}).item() != before.item()
    assert masks(batch | {"clean": 1 - batch["clean"]}).item() == before.item()
    with torch.no_grad():
        small_model.segmentation.conv2.bias[0] += 1
    assert masks(batch) > before + 0.1, "the target stays that of the start"


@pytest.fixture
def shell(
    adapted: tuple[Path, Adaptation],
    start: Callable[..., Adaptation],
    small_preset: Preset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, str]]:
    """Return the command on a copy of the run, with output to tmp_path/out: exit code, output."""
    shutil.copytree(adapted[0], tmp_path / "run")
    preset = write_preset(small_preset, tmp_path / "small.yaml")
    monkeypatch.setattr(command, "adapt", partial(adapt, config=CONFIG))
    recording, bundle = start.args[:2]

    def invoke(out: Path = tmp_path / "out") -> tuple[int, str]:
        return train(
            "adapt", recording.path, "--bundle", bundle.root, "--out", out, "--preset", preset,
            "--run", tmp_path / "run", "--steps", 3, "--batch", 2, "--workers", 0,
            "--backend", "onnxruntime",
        )  # fmt: skip

    return invoke


def test_destroyed_weights_are_refused_and_nothing_is_written(
    shell: Callable[..., tuple[int, str]],
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def export_destroyed(_: MagicFuse, folder: Path, made: Provenance) -> Manifest:
        shutil.copytree(bundle.root, folder)
        graph = onnx.load(path := folder / "mkf.onnx")
        rng = np.random.default_rng(0)
        for tensor in graph.graph.initializer:
            weight = onnx.numpy_helper.to_array(tensor)
            noise = rng.normal(size=weight.shape).astype(weight.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(noise, tensor.name))
        onnx.save(graph, path)
        networks = dict(bundle.manifest.networks)
        networks["mkf"] = networks["mkf"].model_copy(update={"sha256": sha256(path)})
        return bundle.manifest.model_copy(update={"networks": networks, "provenance": made})

    monkeypatch.setattr(running, "export_bundle", export_destroyed)
    code, output = shell()
    assert code == 1 and "refused: clean frame, agreement % is" in output
    assert f"'{tmp_path / 'out'}' was not written" in output
    assert not (tmp_path / "out").exists()
    record = json.loads((tmp_path / "run" / "adapt.json").read_text())
    assert record["misses"] and record["figures"]["kept"] < check.LEAST_KEPT


def test_a_good_bundle_is_written_whole_and_the_table_shows_both(
    adapted: tuple[Path, Adaptation],
    shell: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = replace(adapted[1], figures=GOOD, misses=GOOD.misses())
    monkeypatch.setattr(command, "adapt", lambda *_, **__: result)
    code, output = shell()
    assert "held-out frames: 6 by day, 4 at night" in output
    assert code == 0 and "degraded frame, agreement % 90.00 91.00 at least 90.00" in output.replace(
        "│ ", ""
    )
    assert "magicfuse-train quantize --bundle" in output
    written = Bundle.load(tmp_path / "out")
    assert written.fingerprint == result.bundle.fingerprint
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".onnx", ".json"}


def test_the_bundle_itself_is_never_written_over(
    shell: Callable[..., tuple[int, str]], bundle: Bundle
) -> None:
    code, output = shell(out=bundle.root)
    assert code == 2 and "the bundle itself; expected another folder" in output
    Bundle.load(bundle.root)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, []),
        ({"kept": 96.9}, ["clean frame, agreement % is 96.90, expected at least 97.00"]),
        ({"found_new": 89.9}, ["degraded frame, agreement % is 89.90, expected at least 90.00"]),
        ({"iou_new": 49.9}, ["degraded frame, mean IoU % is 49.90, expected at least 50.00"]),
        ({"found_new": 90.0, "sure_new": 70.0}, []),
        ({"found_new": 90.0, "sure_new": 70.5},
         ["sure pixels % is 70.50, expected at most 70.00"]),
        ({"sure_new": 70.5}, []),  # it is more confident, and rightly
        ({"thermal": 31.0}, ["thermal estimate, dB to the old is 31.00, expected at least 32.00"]),
        ({"restored_new": 19.6},
         ["restored frame, dB to the clean is 19.60, expected at least 19.70"]),
        ({"restored_old": None, "restored_new": None}, []),
    ],
)  # fmt: skip
def test_each_figure_has_its_limit(change: dict[str, float], missed: list[str]) -> None:
    assert replace(GOOD, **change).misses() == missed


def test_a_bundle_compared_with_itself_is_as_good_as_itself(
    adapted: tuple[Path, Adaptation], bundle: Bundle
) -> None:
    fuser = Fuser(bundle, select("onnxruntime"))
    same = compare(fuser, fuser, adapted[0] / "data", (64, 96), 0.116)
    assert (same.frames, same.kept, same.thermal) == (3, 100, 60)
    assert same.found_old == same.found_new and same.sure_old == same.sure_new
    assert same.iou_old == same.iou_new and 0 < same.iou_old <= 100
    assert same.restored_old == same.restored_new and same.restored_old is not None
    assert same.misses() == []


def test_night_frames_are_judged_without_a_clean_image_of_them(
    adapted: tuple[Path, Adaptation], bundle: Bundle, tmp_path: Path
) -> None:
    night = tmp_path / "dev" / "vi"
    night.mkdir(parents=True)
    for i in range(2):
        write_picture(night / f"{i}.png", picture(64, 96, seed=i) // 12)
    fuser = Fuser(bundle, select("onnxruntime"))
    figures = compare(fuser, fuser, tmp_path, (64, 96), 0.116)
    assert figures.restored_new is None and (figures.frames, figures.night) == (2, 2)


def test_an_older_bundle_keeps_its_own_steps_and_its_way_to_code_the_thermal_estimate(
    bundle: Bundle, small_preset: Preset
) -> None:
    newer = small_preset.model_copy(
        update={"steps": [1, 2], "thermal_uncertainty": ThermalUncertainty(lowest=0.1, highest=0.5)}
    )
    found = preset_of(bundle, newer)
    assert found.steps == sorted(bundle.manifest.step_grids)
    assert found.thermal_uncertainty == bundle.manifest.thermal_uncertainty


def test_an_older_bundle_gets_no_layers_that_compute_nothing(
    bundle: Bundle, small_preset: Preset
) -> None:
    for context, condition in (([2, 3], 2), ([1, 1], 0)):  # deeper than the bundle, and less deep
        depth = {"context_blocks": context, "condition_blocks": condition}
        autoencoder = small_preset.autoencoder.model_copy(update=depth)
        other = small_preset.model_copy(update={"autoencoder": autoencoder})
        found = preset_of(bundle, other)
        assert found.autoencoder == small_preset.autoencoder
        model_of(bundle, found)


def test_a_bundle_that_cannot_be_trained_on_is_refused(
    bundle: Bundle, small_preset: Preset
) -> None:
    narrower = small_preset.model_copy(update={"segmentation_width": 4})
    with pytest.raises(TrainingError, match=r"segmentation\..* is .*; preset 'small'.*--preset"):
        model_of(bundle, narrower)
    manifest = bundle.manifest
    half = Bundle(bundle.root, manifest.model_copy(update={"precision": "float16"}))
    with pytest.raises(TrainingError, match="has precision float16; expected one of float32"):
        preset_of(half, small_preset)
    some = [c.model_copy(update={"name": f"{c.name}s"}) for c in manifest.classes]
    other = Bundle(bundle.root, manifest.model_copy(update={"classes": some}))
    with pytest.raises(
        TrainingError, match=r"has the classes skys, .*; expected the project's: sky"
    ):
        preset_of(other, small_preset)
    uneven = Bundle(bundle.root, manifest.model_copy(update={"step_grids": {1: [500]}}))
    with pytest.raises(TrainingError, match=r"time steps \[500\] at K = 1; .* has \[999\]"):
        preset_of(uneven, small_preset)
