# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Plain networks of the same cost: what they lack, what they learn, and how they are scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import write_data

from cli_run import train
from magicfuse_ros.bundle.schedule import ddim_steps
from magicfuse_training.commands import baselines as command
from magicfuse_training.cost import gflop_per_call, parameters
from magicfuse_training.data.crops import Batch
from magicfuse_training.metrics.baseline_scores import clahe, gamma
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.baselines import BASELINES
from magicfuse_training.stages.runner import Budget


@pytest.mark.parametrize("name", BASELINES)
def test_a_frame_costs_what_one_of_nano_costs(name: str) -> None:
    baseline = BASELINES[name]
    with torch.device("meta"):
        model = baseline.build(load_preset("nano"))
    costs = gflop_per_call(model)
    calls = {k: baseline.calls.get(k, 1) for k in costs}
    assert sum(calls[k] * costs[k] for k in costs) == pytest.approx(4.06, rel=0.03)
    count = sum(parameters(model.get_submodule(k)) for k, n in calls.items() if n)
    assert count == pytest.approx(1.52e6, rel=0.04)


@pytest.mark.parametrize("name", BASELINES)
def test_only_the_method_mixes_streams(name: str, small_preset: Preset) -> None:
    torch.manual_seed(0)
    model = BASELINES[name].build(small_preset).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    (step,) = ddim_steps(small_preset.schedule, small_preset.timesteps(1))
    with torch.no_grad():
        condition, *_ = model.encoder(torch.rand(1, 3, 64, 96))
        made = model.advance(
            model.start(condition), condition, step, torch.tensor([model.preset.tau])
        )
    assert made.x0_mkf is not None and made.x0_ikr is not None and made.x0_ckg is not None
    assert torch.allclose(made.x0_mkf, made.x0_ikr, atol=1e-6) == (name != "full")
    assert not torch.allclose(made.x0_ckg, made.x0_ikr, atol=1e-3)


def test_each_learns_what_it_puts_out_and_nothing_else(small_preset: Preset, batch: Batch) -> None:
    learnt = {}
    for name, baseline in BASELINES.items():
        model = baseline.build(small_preset)
        torch.manual_seed(0)  # losses draw half of the batch
        loss = baseline.stage().loss
        assert loss is not None
        learnt[name] = set(loss(model, batch))
    assert learnt["full"] >= {"restored", "segmentation", "fusion", "thermal"}
    assert learnt["three-heads"] == learnt["full"] - {"fusion"}
    assert learnt["segmentation-only"] == {"segmentation"}


def test_gamma_brings_the_mean_to_the_middle_and_clahe_spreads_what_is_near() -> None:
    dark = np.repeat(np.linspace(10, 30, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    assert gamma(dark).mean() == pytest.approx(127.5, abs=4)
    assert gamma(np.zeros((4, 4, 3), np.uint8)).max() == 0
    assert np.ptp(clahe(dark)) > 1.3 * np.ptp(dark) and clahe(dark).shape == dark.shape
    red = dark * np.array([1, 0, 0], np.uint8)
    assert clahe(red)[..., 0].mean() > 2 * clahe(red)[..., 1:].mean()


def test_the_command_scores_all_in_one_table_and_does_not_train_twice(
    exported: tuple[MagicFuse, Path],
    small_preset: Preset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exports take long: every model is scored with the same bundle here."""
    some = {name: BASELINES[name] for name in ("full", "three-heads")}
    monkeypatch.setattr(command, "BASELINES", some)
    monkeypatch.setattr(command, "load_preset", lambda _: small_preset)
    monkeypatch.setattr(
        command,
        "export_bundle",
        lambda _, folder, made: shutil.copytree(exported[1], folder, dirs_exist_ok=True),
    )
    write_data(tmp_path / "data")
    out = tmp_path / "out"
    short = ("--steps", "1", "--batch", "2", "--workers", "0")
    code, output = train("baselines", "--data", tmp_path / "data", "--out", out, *short)
    assert code == 0, output
    rows = json.loads((out / "baselines.json").read_text())["models"]
    assert list(rows) == ["input", "gamma", "CLAHE", "full", "full, formula", "three-heads"]
    assert rows["input"]["PSNR dark"] > 0 and "mIoU clean" not in rows["input"]
    assert rows["full"]["mIoU haze"] is not None and rows["full"]["thermal PSNR"] > 0
    assert rows["full"]["mIoU dark"] == rows["full, formula"]["mIoU dark"]
    assert rows["full"]["MagImg dark"] != rows["full, formula"]["MagImg dark"]
    assert rows["three-heads"]["MagImg dark"] == rows["full, formula"]["MagImg dark"]
    assert rows["full, formula"]["GFLOP"] > rows["full"]["GFLOP"], "it decodes another image"
    table = (out / "baselines.md").read_text()
    assert "1 steps of 2 crops" in table and "| three-heads |" in table
    trained = out / "full" / "one_step" / "last.pt"
    before = trained.stat().st_mtime_ns
    command.train_models(tmp_path / "data", out, small_preset, Budget(steps=1, batch=2, workers=0))
    assert trained.stat().st_mtime_ns == before
