# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The commands that train more than a stage: make, distill, ablate."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_process
import yaml
from dataset_files import picture, write_data
from test_make import follow, state_of, steps, write_pairs, write_preset, write_recipe

from cli_run import train
from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle, Provenance, write_manifest
from magicfuse_ros.fuser import Fuser
from magicfuse_training.commands import ablate, make
from magicfuse_training.export.bundle import export_bundle
from magicfuse_training.export.weights import load_weights
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages import trainer
from magicfuse_training.stages.ablations import ABLATIONS
from magicfuse_training.stages.stages import STAGES

KILLED = 20  # steps of the stage in which the run is killed after its first one


def invoke(*arguments: object) -> None:
    code, output = train(*arguments)
    assert code == 0, output


def make_and_save_often(recipe: Path) -> None:
    """The work of the killed process."""
    torch.set_num_threads(1)
    trainer.SAVE_EVERY_S = 0.0
    folder = recipe.parent
    make.make_command(recipe, folder, folder / "mine", folder / "run", workers=0)


@pytest.fixture(scope="module")
def trained(least_preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pairs, a preset and a recipe, the run of `make`, and its bundle.

    `make` was killed in the second stage and run again; `at_the_kill` is the run at that moment.
    """
    folder = tmp_path_factory.mktemp("made")
    write_pairs(folder)
    for pair in range(5):  # stage `masks` needs labels
        picture(folder / "pairs" / "label" / f"{pair}.png", np.full((64, 96), pair, np.uint8))
    write_preset(least_preset, folder / "least.yaml")
    stages = [steps(KILLED if name == "ikr" else 2, name) for name in STAGES]
    recipe = write_recipe(folder, stages)
    process = training_process._context.Process(target=make_and_save_often, args=(recipe,))
    process.start()
    second, limit = folder / "run" / "ikr" / "last.pt", time.monotonic() + 300
    while not second.exists() and process.is_alive() and time.monotonic() < limit:
        time.sleep(0.01)
    process.kill()
    process.join()
    shutil.copytree(folder / "run", folder / "at_the_kill")
    # A separate process, as in real use: its loader forks, and a fork does not work with the
    # threads of the inference libraries that other tests have loaded here.
    options = ("--data", folder, "--out", folder / "mine", "--run", folder / "run")
    command = map(str, ("make", recipe, *options))
    subprocess.run([sys.executable, "-m", "magicfuse_training.cli", *command], check=True)
    return folder


def test_a_run_that_was_killed_goes_on_in_the_stage_that_it_was_in(trained: Path) -> None:
    first = Path("autoencoder", "last.pt")
    assert (trained / "run" / first).read_bytes() == (trained / "at_the_kill" / first).read_bytes()
    done = torch.load(trained / "at_the_kill" / "ikr" / "last.pt", weights_only=True)["step"]
    assert 0 < done < KILLED
    starts = (trained / "run" / "ikr" / "environment.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in starts] == [0, done]
    assert state_of(trained, "ikr")["step"] == KILLED


def test_five_pairs_become_a_bundle_that_runs_and_a_teacher(
    least_preset: Preset, trained: Path, tmp_path: Path
) -> None:
    bundle = Bundle.load(trained / "mine")
    origin = bundle.manifest.provenance
    assert origin.data[0].startswith("folder, split .: 5 scenes")
    assert list(origin.training_minutes) == [
        "autoencoder", "ikr", "ckg", "mkf", "one_step", "few_step", "masks",
    ]  # fmt: skip
    assert re.fullmatch(r"recipe\.yaml, SHA-256 [0-9a-f]{64}", origin.recipe or "")
    frame = Fuser(bundle, select("onnxruntime"))(np.full((60, 90, 3), 40, np.uint8))
    assert frame.mag_image is not None and frame.mag_image.shape == (60, 90, 3)

    smaller = least_preset.ckg.model_copy(update={"time_channels": 4})
    student = least_preset.model_copy(update={"name": "student", "ckg": smaller})
    invoke(
        "distill", f"--data=folder:{trained / 'pairs'}", "--teacher", str(trained / "run"),
        "--teacher-preset", str(trained / "least.yaml"), "--batch", "2",
        "--preset", write_preset(student, tmp_path / "student.yaml"),
        "--run", str(tmp_path / "student"), "--steps", "2", "--workers", "0",
    )  # fmt: skip
    taught = torch.load(tmp_path / "student" / "distill" / "last.pt", weights_only=True)["ema"]
    teacher = torch.load(trained / "run" / "masks" / "last.pt", weights_only=True)["ema"]
    assert all(torch.equal(taught[k], teacher[k]) for k in teacher if not k.startswith("ckg."))


def test_ablate_leaves_a_table_and_a_plot(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one machine and scored on another, starting from phase 1 of a bundle.

    Exports take long: the full model's bundle is the one that it starts from.
    """

    def export(model: MagicFuse, folder: Path, made: Provenance) -> None:
        if folder.parent.name == "full":
            shutil.copytree(trained / "mine", folder)
        else:
            export_bundle(model, folder, made)

    monkeypatch.setattr(ablate, "export_bundle", export)
    some = {k: ABLATIONS[k] for k in ("full", "without-segmentation")}
    monkeypatch.setattr(ablate, "ABLATIONS", some)
    monkeypatch.setattr(ablate, "ablations_of", lambda _: some)
    monkeypatch.setattr(ablate, "TAUS", (0.0, 1.0))
    write_data(tmp_path / "data")
    out, bundle = tmp_path / "out", str(trained / "mine")
    data = ("ablate", "--data", str(tmp_path / "data"), "--out", str(out))
    start = ("--from-bundle", bundle, "--preset", str(trained / "least.yaml"), "--only", "train")
    invoke(*data, *start, "--minutes", "0", "--batch", "2", "--workers", "0")
    assert not (out / "ablation.json").exists()
    for checkpoint in out.glob("models/*/*/last.pt"):
        checkpoint.unlink()
    invoke(*data, "--only", "score")
    result = json.loads((out / "ablation.json").read_text())
    beside = {"restored", "restored + clipped heat"}
    assert set(result["models"]) == {*some, *beside} and set(result["tau"]) == {"0.0", "1.0"}
    assert result["models"]["without-segmentation"]["mIoU clean"] is None
    assert result["models"]["full"]["Qabf"] > 0 and result["tau"]["0.0"]["mIoU dark"] is not None
    assert result["models"]["full"]["mIoU clean"] is not None
    assert result["start"] == bundle and result["steps"]["full"] == {"mkf": 0}
    table = (out / "ablation.md").read_text()
    assert "| without-segmentation | II |" in table and "person contrast" in table
    assert cv2.imread(str(out / "ablation.png")) is not None


def test_a_stage_goes_on_from_a_bundle_in_small_steps_and_with_its_statistics(
    trained: Path, tmp_path: Path
) -> None:
    invoke(
        "stage", "mkf", f"--data=folder:{trained / 'pairs'}",
        "--from-bundle", str(trained / "mine"),
        "--preset", str(trained / "least.yaml"), "--run", str(tmp_path), "--batch", "2",
        "--steps", "2", "--workers", "0",
    )  # fmt: skip
    config = yaml.safe_load((tmp_path / "mkf" / "config.yaml").read_text())
    assert config["stage"]["optimizer"]["learning_rate"] == 4e-4
    before = torch.load(trained / "run" / "masks" / "last.pt", weights_only=True)["ema"]
    after = torch.load(tmp_path / "mkf" / "last.pt", weights_only=True)["model"]
    statistics = [k for k in before if "running_" in k]
    assert statistics
    for key in statistics:
        torch.testing.assert_close(after[key], before[key])
    moved = {k.split(".")[0] for k in before if not torch.allclose(after[k], before[k], atol=1e-3)}
    assert moved <= {"mkf", "segmentation"}


def test_a_stage_starts_from_a_bundle_as_it_was_at_a_commit(
    least_preset: Preset,
    trained: Path,
    git: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "recipes"
    write_pairs(folder)
    write_preset(least_preset, folder / "least.yaml")
    engine = Path(shutil.copytree(trained / "mine", tmp_path / "engines" / "small"))
    bundle = Bundle.load(engine)
    before = bundle.manifest.provenance.model_copy(
        update={"data": ["three scenes"], "weights_license": "your own"}
    )
    write_manifest(engine, bundle.manifest.model_copy(update={"provenance": before}))
    model = MagicFuse(least_preset)
    load_weights(model, bundle)
    git("init", "-q")
    git("add", "engines")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    git("rm", "-qr", "engines")
    git("commit", "-qm", "two")

    start = {"commit": commit, "bundle": "engines/small"}
    average = {"stages": ["start", "one_step"], "weights": [1, 1], "networks": ["mkf"]}
    stages = [steps(0, "mkf"), steps(1, "one_step")]
    recipe = write_recipe(folder, stages, start=start, average=average)
    exports: list[tuple[dict[str, torch.Tensor], Provenance]] = []
    monkeypatch.setattr(
        make, "export_bundle", lambda model, out, made: exports.append((model.state_dict(), made))
    )
    assert follow(recipe)[0] == 0
    begun, first, last = model.state_dict(), state_of(folder, "mkf"), state_of(folder, "one_step")
    of_bundle = [k for k in begun if "encoder.latent" not in k and "batches" not in k]
    assert all(torch.equal(first["ema"][key], begun[key]) for key in of_bundle)
    for name in ("mkf", "one_step"):
        stage = yaml.safe_load((folder / "run" / name / "config.yaml").read_text())["stage"]
        assert stage["frozen_statistics"] and stage["optimizer"]["learning_rate"] == 4e-4
        seen = yaml.safe_load((folder / "run" / name / "data.yaml").read_text())["data"]
        assert seen[1:] == ["three scenes"], "a stage that is exported on its own tells it, too"
    ((weights, made),) = exports
    assert not all(torch.equal(last["ema"][key], begun[key]) for key in of_bundle)
    for key in of_bundle:
        mean = (begun[key] + last["ema"][key]) / 2
        want = mean if "mkf." in key else last["ema"][key]  # a step moves little
        torch.testing.assert_close(weights[key], want, rtol=3e-7, atol=1e-8)
    assert made.data[0].startswith("folder") and made.data[1:] == ["three scenes"]
    assert made.weights_license.endswith("; your own")
