# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Learning rates over a run, and the settings that a preset may contain."""

import re
from pathlib import Path

import pytest
import torch
from training_process import small_crops

from magicfuse_training.errors import PresetError, TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.muon import orthogonal
from magicfuse_training.optimizer import (
    AdamWConfig,
    CosineSchedule,
    MuonConfig,
    SGDConfig,
    StageOverrides,
    StepSchedule,
)
from magicfuse_training.preset import PRESETS, Preset, load_preset
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer


def test_a_cosine_warms_up_and_ends_at_its_floor() -> None:
    schedule = CosineSchedule(warmup_steps=10, floor=0.1)
    assert schedule.factor(0, 0.0, 0.0) == pytest.approx(0.1)
    assert schedule.factor(10, 0.0, 0.0) == pytest.approx(1.0)
    assert schedule.factor(50, 0.5, 0.0) == pytest.approx(0.55)
    assert schedule.factor(99, 1.0, 0.0) == schedule.factor(99, 1.2, 0.0) == pytest.approx(0.1)


def test_a_step_schedule_halves_by_epochs_whatever_the_budget() -> None:
    schedule = StepSchedule(kind="step", halve_every_epochs=10)
    factors = [schedule.factor(0, 0.0, epoch) for epoch in (0.0, 9.9, 10.0, 25.0)]
    assert factors == [1.0, 1.0, 0.5, 0.25]


def test_optimizers_are_built_as_configured() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    sgd = SGDConfig(kind="sgd", learning_rate=1e-3, momentum=0.9, weight_decay=1e-4)
    (group,) = sgd.build({"w": weight}).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-3, 0.9, 1e-4)
    (group,) = AdamWConfig(weight_decay=0.3).build({"w": weight}).param_groups
    assert (group["lr"], group["weight_decay"]) == (2e-3, 0.3)
    assert isinstance(_MUON.build({"w": weight}), torch.optim.AdamW)


_MUON = MuonConfig(kind="muon", learning_rate=1e-3, weight_decay=0)


def _named(parameters: list[torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    return {str(i): p for i, p in enumerate(parameters)}


def test_weights_that_a_factor_names_take_larger_steps(
    small_preset: Preset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = AdamWConfig(weight_decay=0, factors={"mkf.layers.": 8.0})
    training = {"mkf": StageOverrides(optimizer=config, schedule=CosineSchedule(warmup_steps=0))}
    model = MagicFuse(small_preset.model_copy(update={"training": training}))
    before = {name: p.detach().clone() for name, p in model.mkf.named_parameters()}
    Trainer(STAGES["mkf"], model, tmp_path / "mkf", steps=1).run(small_crops(), 0)
    moved = {
        name: float((p.detach() - before[name]).abs().max())
        for name, p in model.mkf.named_parameters()
    }
    faster = [size for name, size in moved.items() if size and name.startswith("layers.")]
    others = [size for name, size in moved.items() if size and not name.startswith("layers.")]
    assert faster == pytest.approx([8 * 2e-3] * len(faster), rel=0.3)  # AdamW's first step
    assert others == pytest.approx([2e-3] * len(others), rel=0.3)
    assert faster and others


def test_a_run_of_before_there_were_factors_goes_on(small_preset: Preset, tmp_path: Path) -> None:
    def run(steps: int) -> None:
        torch.manual_seed(0)
        model = MagicFuse(small_preset)
        Trainer(STAGES["ikr"], model, tmp_path, steps=steps).run(small_crops(), 0)

    run(1)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        del group["factor"]
    torch.save(state, tmp_path / "last.pt")
    run(2)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2


def test_a_factor_that_fits_no_weight_is_named() -> None:
    config = AdamWConfig(factors={"encodr.": 10})
    message = "factors has 'encodr.'; no trained weight's name starts so"
    with pytest.raises(TrainingError, match=re.escape(message)):
        config.build({"encoder.down.weight": torch.nn.Parameter(torch.ones(1))})


def test_an_orthogonal_matrix_has_the_gradients_directions_and_equal_lengths() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(16, 40)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    for m, expected in ((matrix, u @ v), (matrix.T, (u @ v).T)):
        found = orthogonal(m)
        lengths = torch.linalg.svdvals(found)
        assert lengths.min() > 0.6 and lengths.max() < 1.3 < s.max() / s.min()
        assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0) > 0.98


def test_muon_moves_a_kernel_along_all_its_directions_by_the_size_of_adamw() -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(
        torch.zeros(16, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    )
    optimizer = _MUON.build({"w": kernel})
    kernel.grad = torch.randn_like(kernel) * torch.logspace(0, -2, 16)[:, None, None, None]
    down = (kernel.grad < 0).float().mean()
    optimizer.step()
    moved = kernel.detach().flatten(1)
    assert moved.square().mean().sqrt() == pytest.approx(2e-4, rel=0.2)
    norms = moved.norm(dim=1)
    assert norms.max() / norms.min() < 2  # the gradient's differ by a factor of 100
    assert 0.3 < down < 0.7 and (moved > 0).float().mean() == pytest.approx(float(down), abs=0.05)


def test_muon_leaves_vectors_and_thin_matrices_to_adamw() -> None:
    torch.manual_seed(0)
    start = [torch.randn(12), torch.randn(3, 50), torch.randn(9, 1, 2, 2)]
    gradients = [torch.randn_like(p) for p in start]
    ended = []
    for config in (_MUON, AdamWConfig(learning_rate=1e-3, weight_decay=0)):
        parameters = [torch.nn.Parameter(p.clone()) for p in start]
        optimizer = config.build(_named(parameters))
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
        ended.append(parameters)
    for p, q in zip(*ended, strict=True):
        torch.testing.assert_close(p, q)


def test_muon_goes_on_from_its_saved_state_as_if_it_had_not_stopped() -> None:
    torch.manual_seed(0)
    gradients = [[torch.randn(8, 9), torch.randn(5)] for _ in range(4)]

    def run(stop: int | None) -> list[torch.Tensor]:
        parameters = [torch.nn.Parameter(torch.ones(8, 9)), torch.nn.Parameter(torch.ones(5))]
        optimizer = _MUON.build(_named(parameters))
        for i, drawn in enumerate(gradients):
            if i == stop:
                state = optimizer.state_dict()
                optimizer = _MUON.build(_named(parameters))
                optimizer.load_state_dict(state)
            for p, gradient in zip(parameters, drawn, strict=True):
                p.grad = gradient.clone()
            optimizer.step()
        return [p.detach() for p in parameters]

    for whole, resumed in zip(run(None), run(2), strict=True):
        assert torch.equal(whole, resumed)


def test_a_preset_sets_the_optimizer_and_the_schedule_of_a_stage(
    small_preset: Preset, tmp_path: Path
) -> None:
    overrides = StageOverrides.model_validate(
        {
            "optimizer": {"kind": "sgd", "learning_rate": 1e-3},
            "schedule": {"kind": "step", "halve_every_epochs": 1},
        }
    )
    preset = small_preset.model_copy(update={"training": {"mkf": overrides}})
    trainer = Trainer(STAGES["mkf"], MagicFuse(preset), tmp_path / "mkf", steps=2)
    crops = small_crops()  # three scenes, batches of three: a step is an epoch
    trainer.run(crops, 0)
    assert isinstance(trainer.optimizer.optimizer, torch.optim.SGD)
    assert trainer.rate == 0.5e-3
    assert "halve_every_epochs: 1" in (tmp_path / "mkf" / "config.yaml").read_text()
    other = Trainer(STAGES["ikr"], MagicFuse(preset), tmp_path / "ikr", steps=2)
    assert isinstance(other.optimizer.optimizer, torch.optim.AdamW)


def test_a_misspelt_key_of_a_schedule_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    text = (PRESETS / "nano.yaml").read_text()
    path.write_text(text + "training: {mkf: {schedule: {kind: step, halve_evry_epochs: 1}}}\n")
    message = (
        "training.mkf.schedule.halve_evry_epochs is unknown; did you mean 'halve_every_epochs'?"
    )
    with pytest.raises(PresetError, match=re.escape(message)):
        load_preset(str(path))
