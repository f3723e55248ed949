# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The training loop learns, keeps to its budget, and survives bad batches."""

import copy
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_process import small_crops

from magicfuse_training.data.crops import Batch
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.optimizer import CosineSchedule
from magicfuse_training.preset import Preset
from magicfuse_training.stages.pictures import draw_pictures
from magicfuse_training.stages.stage import Stage, to_device
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import MAX_SKIPPED, Trainer


@pytest.fixture
def model(small_preset: Preset) -> MagicFuse:
    torch.manual_seed(0)
    return MagicFuse(small_preset)


def copy_of(model: MagicFuse) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_every_stage_trains_its_own_networks_and_no_other(
    small_preset: Preset, tmp_path: Path
) -> None:
    batch = next(iter(small_crops()))
    for name, stage in STAGES.items():
        torch.manual_seed(0)
        model = MagicFuse(small_preset)
        before = copy_of(model)
        terms = Trainer(stage, model, tmp_path / name, minutes=1).train_step([batch], 0, 0.0)
        assert terms and all(v == v for v in terms.values())
        changed = [k for k, v in model.state_dict().items() if not v.equal(before[k])]
        assert all(any(k.startswith(f"{t}.") for k in changed) for t in stage.trained)
        assert all(k.startswith(tuple(f"{t}." for t in stage.trained)) for k in changed)


def test_few_step_trains_the_function_that_inference_runs(model: MagicFuse, tmp_path: Path) -> None:
    """Batches of several kinds: statistics of one kind are not those of inference."""
    trainer = Trainer(STAGES["few_step"], model, tmp_path, minutes=1)
    names = [k for k in model.state_dict() if "running" in k]
    before = copy_of(model)
    for _ in range(2):
        trainer.train_step([next(iter(small_crops()))], 0, 0.0)
    assert names and all(torch.equal(model.state_dict()[k], before[k]) for k in names)


def test_a_run_learns_within_its_minutes(
    model: MagicFuse, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(STAGES["autoencoder"], schedule=CosineSchedule(warmup_steps=0))
    trainer = Trainer(stage, model, tmp_path, minutes=0.2)
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 0.2 * next(ticks))  # 60 steps, however slow
    monkeypatch.setattr("magicfuse_training.stages.trainer.time", clock)

    @torch.no_grad()
    def reconstruction() -> float:
        assert stage.loss is not None
        total = 0.0
        for seed in range(8):  # the loss draws its targets
            torch.manual_seed(seed)
            total += float(stage.loss(trainer.model, batch)["reconstruction"])
        return total

    first = reconstruction()
    trainer.run(small_crops(), workers=0)
    assert 12 <= trainer.at.elapsed < 13
    assert reconstruction() < 0.9 * first
    assert not list(tmp_path.glob("*.partial"))


def test_a_run_of_steps_leaves_a_folder_that_explains_it(model: MagicFuse, tmp_path: Path) -> None:
    trainer = Trainer(STAGES["mkf"], model, tmp_path, steps=3)
    averaged = trainer.run(small_crops(), 0, validation=next(iter(small_crops(2))))
    assert not averaged.training and trainer.at.step == 3
    config = (tmp_path / "config.yaml").read_text()
    assert re.search(r"(?m)^seed: 0$", config) and "kind: adamw" in config
    (environment,) = (tmp_path / "environment.jsonl").read_text().splitlines()
    assert json.loads(environment).keys() >= {"python", "torch", "device", "threads", "commit"}
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 3 and line.keys() >= {"fusion", "segmentation", "rate", "skipped"}
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss/fusion", "run/rate", "validation/fusion"} <= set(board.Tags()["scalars"])
    assert [e.step for e in board.Images("validation")] == [0, 3]


def test_pictures_are_drawn_of_every_kind_of_model(
    small_model: MagicFuse, small_paper: MagicFuse
) -> None:
    batch = to_device(small_crops(2)[range(2)], torch.device("cpu"))
    for model in (small_model, small_paper):
        sheet = draw_pictures(model, batch)
        assert sheet.dtype == np.uint8 and sheet.shape[2] == 3 and sheet.std() > 10


def test_a_finished_run_is_left_as_it_is(model: MagicFuse, tmp_path: Path) -> None:
    start = copy.deepcopy(model)
    Trainer(STAGES["ckg"], model, tmp_path, steps=2).run(small_crops(), 0)
    before, log = (tmp_path / "last.pt").read_bytes(), (tmp_path / "log.jsonl").read_text()
    again = Trainer(STAGES["ckg"], start, tmp_path, steps=2)
    again.run(small_crops(), 0)
    assert again.at.step == 2 and (tmp_path / "last.pt").read_bytes() == before
    assert (tmp_path / "log.jsonl").read_text() == log


def bad_loss(good_steps: int) -> Stage:
    """A stage whose images become non-finite after some steps: statistics and gradient go bad."""
    calls = 0

    def loss(model: MagicFuse, batch: Batch) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        image = batch["degraded"] if calls <= good_steps else batch["degraded"] * torch.nan
        return {"bad": model.encoder.encode(image).float().square().mean()}

    return replace(STAGES["autoencoder"], loss=loss, trained=("encoder",))


def test_a_step_without_a_finite_gradient_leaves_no_trace_and_is_counted(
    model: MagicFuse, tmp_path: Path
) -> None:
    trainer = Trainer(bad_loss(1), model, tmp_path, steps=5)
    batch = next(iter(small_crops()))
    before = copy_of(model)
    assert trainer.train_step([batch], 0, 0.0)
    assert not trainer.optimizer.param_groups[0]["params"][0].equal(before["encoder.stem.0.weight"])
    good, average = copy_of(model), copy_of(trainer.ema)
    assert trainer.train_step([batch], 0, 0.0) == {}
    for k in good:
        assert torch.equal(model.state_dict()[k], good[k]), k
        assert torch.equal(trainer.ema.state_dict()[k], average[k]), k
    assert (trainer.at.step, trainer.at.skipped) == (2, 1)


def test_a_run_without_finite_gradients_is_given_up(model: MagicFuse, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"'autoencoder': no finite gradient in 20 steps up to step 22"
    ):
        Trainer(bad_loss(2), model, tmp_path, steps=100).run(small_crops(), 0)
    assert MAX_SKIPPED == 20 and not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize(
    ("steps", "minutes", "accumulate", "message"),
    [
        (None, None, 1, "budget is None minutes and None steps; expected one of the two"),
        (5, 5.0, 1, "budget is 5.0 minutes and 5 steps"),
        (5, None, 2, "batch is 3; expected a multiple of 2 (1 processes x 2 accumulated)"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    model: MagicFuse,
    tmp_path: Path,
    steps: int | None,
    minutes: float | None,
    accumulate: int,
    message: str,
) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        Trainer(STAGES["ikr"], model, tmp_path, minutes, steps=steps, accumulate=accumulate).run(
            small_crops(), 0
        )
    assert not list(tmp_path.iterdir())
