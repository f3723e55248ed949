# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A run's records, and the changes with which it refuses to resume; the stage command."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from dataset_files import write_data
from test_make import write_preset
from training_process import small_crops

from cli_run import train
from magicfuse_training.commands.runs import newest_checkpoint, recorded_preset
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages import accelerator
from magicfuse_training.stages.accelerator import MixedPrecision
from magicfuse_training.stages.run_folder import data_rows, drop_lines_after, locked, untrained
from magicfuse_training.stages.runner import recorded_data
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer

ROWS = ["train/a.jpg\t10\tab", "train/b.jpg\t10\tcd"]


@pytest.fixture(scope="module")
def two_steps(small_preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(small_preset, folder)
    return folder


@pytest.fixture
def begun(two_steps: Path, tmp_path: Path) -> Path:
    """Folder of a run of two steps."""
    return Path(shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True))


def run(
    preset: Preset,
    folder: Path,
    *,
    stage: str = "ikr",
    steps: int = 2,
    seed: int = 0,
    batch: int = 3,
    learning_rate: float = 2e-3,
    rows: list[str] = ROWS,
    mixed_precision: MixedPrecision | None = None,
    weights: int = 0,
    opened: Callable[[], None] = lambda: None,
) -> Trainer:
    ours = STAGES[stage]
    optimizer = ours.optimizer.model_copy(update={"learning_rate": learning_rate})
    torch.manual_seed(weights)
    stage_ = replace(ours, optimizer=optimizer)
    model = MagicFuse(preset)
    trainer = Trainer(stage_, model, folder, steps=steps, mixed_precision=mixed_precision)
    trainer.run(small_crops(batch, seed), 0, data=rows, opened=opened)
    return trainer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "was started with seed 0, and now has 1"),
        ({"batch": 6}, "was started with stage.crops.batch 3, and now has 6"),
        ({"stage": "ckg"}, "was started with stage.name ikr, and now has ckg"),
        ({"learning_rate": 1e-3}, "stage.optimizer.learning_rate 0.002, and now has 0.001"),
        ({"weights": 1}, "was started with start_weights "),
        ({"rows": ROWS[:1]}, "other data: train/b.jpg differs (2 files then, 1 now)"),
        ({"rows": [ROWS[0], "train/b.jpg\t9\tef"]}, "other data: train/b.jpg differs"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(
    small_preset: Preset, begun: Path, change: dict[str, object], message: str
) -> None:
    before = (begun / "last.pt").read_bytes()
    asked: list[bool] = []  # to record what it was trained on
    with pytest.raises(TrainingError, match=re.escape(message)):
        run(small_preset, begun, opened=lambda: asked.append(True), **change)  # type: ignore[arg-type]
    assert (begun / "last.pt").read_bytes() == before and not asked
    run(small_preset, begun, opened=lambda: asked.append(True))
    assert asked


def test_a_run_does_not_go_on_with_another_preset(small_preset: Preset, begun: Path) -> None:
    wider = small_preset.ikr.model_copy(update={"widths": [8, 24]})
    other = small_preset.model_copy(update={"ikr": wider})
    message = "started with preset.ikr.widths [8, 16], and now has [8, 24]"
    with pytest.raises(TrainingError, match=re.escape(message)):
        run(other, begun)


def test_an_optional_setting_that_is_newer_than_a_run_does_not_end_it(
    small_preset: Preset, begun: Path
) -> None:
    config = yaml.safe_load((begun / "config.yaml").read_text())
    assert config["preset"]["losses"].pop("class_weights_at_night") is None
    (begun / "config.yaml").write_text(yaml.safe_dump(config))
    run(small_preset, begun)
    losses = small_preset.losses.model_copy(update={"class_weights_at_night": [1.0] * 11})
    with pytest.raises(TrainingError, match="class_weights_at_night"):
        run(small_preset.model_copy(update={"losses": losses}), begun)


def test_a_run_does_not_go_on_with_its_data_drawn_otherwise(
    small_preset: Preset, begun: Path
) -> None:
    config = yaml.safe_load((begun / "config.yaml").read_text())
    scenes, share = config["draws"][0]
    config["draws"][0] = [scenes, share / 2]  # as of a set that was given only once
    (begun / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(TrainingError, match="was started with draws"):
        run(small_preset, begun, steps=3)


def test_two_processes_do_not_train_in_one_folder(small_preset: Preset, begun: Path) -> None:
    before = (begun / "last.pt").read_bytes()
    with locked(begun), pytest.raises(TrainingError, match="another process trains in"):
        run(small_preset, begun, steps=3)
    assert (begun / "last.pt").read_bytes() == before
    assert run(small_preset, begun, steps=3).at.step == 3


def test_data_rows_tell_what_changed_in_a_file_also_below_a_link(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "disk" / "vi").mkdir(parents=True)
    (elsewhere / "a.png").write_bytes(b"one")
    (pairs := tmp_path / "pairs").mkdir()
    (pairs / "vi").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(pairs)  # a circle
    (row,) = data_rows([pairs])
    assert row.startswith(f"{tmp_path.name}/pairs/vi/a.png\t3\t7692c3ad3540bb80")
    (elsewhere / "a.png").write_bytes(b"two")
    assert data_rows([pairs]) != [row]


def test_a_run_can_be_prolonged(small_preset: Preset, begun: Path) -> None:
    assert run(small_preset, begun, steps=3).at.step == 3
    lines = (begun / "environment.jsonl").read_text().splitlines()
    assert [json.loads(line)["budget"]["steps"] for line in lines] == [2, 3]


@pytest.mark.parametrize(("before", "after"), [("bf16", "no"), ("no", "bf16")])
def test_a_run_that_goes_on_keeps_its_precision(
    before: MixedPrecision,
    after: MixedPrecision,
    small_preset: Preset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every process measures the fastest again; the result may differ."""
    monkeypatch.setattr(accelerator, "fastest_precision", lambda: before)
    assert run(small_preset, tmp_path, steps=1).mixed_precision == before
    monkeypatch.setattr(accelerator, "fastest_precision", lambda: after)
    trainer = run(small_preset, tmp_path, steps=2)
    assert trainer.accelerator.mixed_precision == before and trainer.at.step == 2
    message = f"was started with mixed_precision {before}, and now has {after}"
    with pytest.raises(TrainingError, match=message):
        run(small_preset, tmp_path, steps=3, mixed_precision=after)
    (tmp_path / "last.pt").unlink()  # no checkpoint to resume from: a new run
    assert run(small_preset, tmp_path, steps=1).mixed_precision == after


def test_a_checkpoint_of_an_earlier_version_is_named(small_preset: Preset, begun: Path) -> None:
    state = torch.load(begun / "last.pt", weights_only=True)
    old = {k: state[k] for k in ("model", "ema", "optimizer", "step", "elapsed")}
    torch.save(old, begun / "last.pt")
    with pytest.raises(TrainingError, match=r"last\.pt' lacks means, scaler, skipped"):
        run(small_preset, begun, steps=3)


def test_names_of_any_bytes_are_part_of_the_data(small_preset: Preset, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    for name in (b"caf\xe9.jpg", "a\u2028b.jpg".encode(), b"c\nd.jpg"):
        (folder / os.fsdecode(name)).write_bytes(name)
    rows = data_rows([folder])
    assert len(rows) == 3 and all("\n" not in row for row in rows)
    run(small_preset, tmp_path / "run", rows=rows)
    assert run(small_preset, tmp_path / "run", steps=3, rows=data_rows([folder])).at.step == 3


def test_log_lines_past_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    drop_lines_after(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_the_command_trains_a_stage_from_the_one_before(
    small_preset: Preset, tmp_path: Path
) -> None:
    write_data(tmp_path / "data")
    preset = write_preset(small_preset, tmp_path / "small.yaml")
    runs = tmp_path / "runs"

    def stage(name: str, *options: str) -> tuple[int, str]:
        data = [f"--data={k}-repacked:{tmp_path / 'data' / k}" for k in ("camvid", "msrs")]
        common = (*data, "--run", runs, "--preset", preset, "--workers", "0", "--batch", "2")
        return train("stage", name, *common, *options)

    assert stage("autoencoder", "--steps", "2")[0] == 0
    code, output = stage("ikr", "--steps", "1")
    assert code == 0 and "autoencoder/last.pt" in output.replace(" ", "")
    config = yaml.safe_load((runs / "ikr" / "config.yaml").read_text())
    assert config["start"].endswith("autoencoder/last.pt") and config["seed"] == 0
    data = (runs / "ikr" / "data.tsv").read_text().splitlines()
    trained = recorded_data(runs / "ikr")
    assert [text.split(" (")[0] for text in trained.data] == [
        "camvid-repacked, split train: 2 scenes",
        "msrs-repacked, split train: 2 scenes",
    ]
    assert "CC BY-NC" in trained.terms and "MFNet" in trained.terms
    assert len(data) == 2 * 2 + 2 * 4 and all("/train/" in row for row in data)
    begun = torch.load(runs / "autoencoder" / "last.pt", weights_only=True)["ema"]
    ended = torch.load(runs / "ikr" / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(ended[k], begun[k]) for k in ended if k.startswith("decoder"))

    code, output = stage("ikr", "--steps", "1", "--seed", "7")
    assert code == 2 and "was started with seed 0, and now has 7" in output
    code, output = stage("ikr")
    assert code == 2 and "budget is None minutes and None steps" in output
    preset.write_text(preset.read_text().replace("training: {}", "training: {mfk: {}}"))
    code, output = stage("mkf", "--steps", "1")
    assert code == 2 and "training.mfk is unknown; did you mean 'mkf'?" in output


def test_a_stage_follows_the_run_and_not_what_lies_beside_its_data(
    small_preset: Preset, tmp_path: Path
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    write_data(data)
    preset = write_preset(small_preset, tmp_path / "small.yaml")

    def stage(name: str, kind: str, *options: str) -> tuple[int, str]:
        common = (f"--data={kind}-repacked:{data / kind}", f"--run={run}", "--workers=0")
        return train("stage", name, *common, "--batch=2", *options)

    assert stage("autoencoder", "msrs", "--steps=3", f"--preset={preset}")[0] == 0
    code, output = stage("ikr", "camvid", "--steps=2")  # with the run's preset
    assert code == 0, output
    known = recorded_data(run / "ikr")
    assert [text.partition(",")[0] for text in known.data] == ["camvid-repacked", "msrs-repacked"]
    assert "CC BY-NC" in known.terms and "MFNet" in known.terms
    (data / "camvid" / "train" / "vi" / "notes.txt").write_text("a run or a sheet may lie here")
    assert stage("ikr", "camvid", "--steps=3")[0] == 0  # resumes
    other = np.zeros((64, 96), np.uint8)
    cv2.imwrite(str(data / "camvid" / "train" / "label" / "1D.png"), other)
    code, output = stage("ikr", "camvid", "--steps=4")
    assert code == 2 and "was started with other data" in output

    state = torch.load(run / "ikr" / "last.pt", weights_only=True)
    torch.save({**state, "step": 1}, run / "ikr" / "last.pt")
    assert "'ikr' is not finished: it did 1 of 3 steps" in str(untrained(run / "ikr"))
    found = newest_checkpoint(run)
    assert found == run / "ikr" / "last.pt" and recorded_preset(found) == small_preset

    shutil.rmtree(run / "autoencoder")
    shutil.rmtree(run / "ikr")
    (run / "mkf").mkdir()
    shutil.copy(preset, run / "mkf" / "last.pt")
    code, output = stage("ikr", "camvid", "--steps=1")
    assert code == 2 and "has mkf, but no stage before 'ikr' to start from" in output
