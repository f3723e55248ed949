# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Every ablated model lacks exactly the part that its name says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_process import enliven

from magicfuse_ros.bundle.schedule import Step
from magicfuse_ros.errors import MagicFuseError
from magicfuse_training.commands import ablate
from magicfuse_training.data.crops import Batch
from magicfuse_training.metrics.ablation import write_table
from magicfuse_training.model import MagicFuse, Streams
from magicfuse_training.preset import Preset
from magicfuse_training.stages.ablations import ABLATIONS, ablations_of, build, degraded_loss
from magicfuse_training.stages.distillation import distillation_loss, student_of
from magicfuse_training.stages.randomness import seed_step
from magicfuse_training.stages.stage import Loss
from magicfuse_training.stages.stages import mkf_loss

Fuse = Callable[[MagicFuse, torch.Tensor], tuple[torch.Tensor, ...]]


@pytest.fixture
def fuse() -> Fuse:
    latent = torch.randn(4, 1, 4, 8, 12, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def run(model: MagicFuse, thermal: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ones = torch.ones(1)
        streams = ((latent[0], latent[1]), (thermal, thermal))
        z_seg = torch.zeros(1, 11, 8, 12)
        condition = torch.zeros(1, model.preset.autoencoder.condition_channels, 8, 12)
        levels = (499 * ones, 0.3 * ones, ones)
        return model.fuse(*streams, latent[2], z_seg, *levels, ones, condition)

    return run


def test_only_the_restoring_stream_alone_ignores_the_thermal_one(
    small_preset: Preset, fuse: Fuse
) -> None:
    for name, ablation in ABLATIONS.items():
        torch.manual_seed(0)
        model = ablation.model(small_preset).eval()
        cold, hot = (fuse(model, torch.full((1, 4, 8, 12), v))[0] for v in (0.0, 1.0))
        assert torch.equal(cold, hot) == (name == "restoring-stream-alone"), name


def test_only_equal_weights_are(small_preset: Preset, fuse: Fuse) -> None:
    for name, ablation in ABLATIONS.items():
        torch.manual_seed(0)
        w = fuse(ablation.model(small_preset).eval(), torch.zeros(1, 4, 8, 12))[3]
        assert bool((w == 0.5).all()) == (name == "equal-weights")


def test_only_without_estimates_f_does_not_see_them(small_preset: Preset) -> None:
    torch.manual_seed(0)
    x0, z, noise, z_seg = (torch.randn(1, c, 8, 12) for c in (4, 4, 8, 11))
    condition = torch.zeros(1, small_preset.autoencoder.condition_channels, 8, 12)
    for name, ablation in ABLATIONS.items():
        network = ablation.model(small_preset).eval().mkf
        enliven(network)
        here, there = (
            network(x, x, z, noise, z_seg, torch.ones(1), condition)[1] for x in (x0, 2 * x0)
        )
        assert torch.equal(here, there) == (name == "without-estimates"), name


def test_fused_afterwards_mixes_the_streams_images_and_differs_from_k_2_on(
    small_preset: Preset,
) -> None:
    model = ABLATIONS["fused-afterwards"].model(small_preset).eval()
    full = ABLATIONS["full"].model(small_preset).eval()
    for each in (model, full):
        torch.manual_seed(1)
        for parameter in each.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    condition = torch.randn(1, small_preset.autoencoder.condition_channels, 8, 12)
    tau = torch.ones(1)

    def sampled(net: MagicFuse, count: int) -> Streams:
        torch.manual_seed(2)
        return net.sample(net.start(condition), condition, count, tau)

    with torch.no_grad():
        for count, same in ((1, True), (3, False)):
            ours, theirs = sampled(model, count), sampled(full, count)
            w, ikr, ckg = ours.w, ours.x0_ikr, ours.x0_ckg
            assert w is not None and ikr is not None and ckg is not None
            torch.testing.assert_close(ours.x0_mkf, w * ikr + (1 - w) * ckg)
            assert torch.allclose(ours.x0_mkf, theirs.x0_mkf, atol=1e-4) == same
    assert "fused-afterwards" not in ablations_of(small_preset), "at K = 1 it is the full model"
    several = small_preset.model_copy(update={"steps": [3], "default_steps": 3})
    assert list(ablations_of(several)) == list(ABLATIONS)


def test_the_papers_models_are_named() -> None:
    papers = {a.paper: name for name, a in ABLATIONS.items() if a.paper}
    assert papers == {
        "I": "without-estimates",
        "II": "without-segmentation",
        "III": "fused-afterwards",
        "IV": "restoring-stream-alone",
    }


def test_a_budget_in_steps_takes_the_place_of_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = []
    monkeypatch.setattr(ablate, "train_models", lambda *given: budgets.append(given[-1]))
    for steps in (30, None):
        ablate.ablate_command(
            tmp_path, tmp_path / "out", from_bundle=tmp_path, steps=steps, only="train"
        )
    assert [(b.minutes, b.steps) for b in budgets] == [(None, 30), (10, None)]
    result = {"steps": {"full": {"mkf": 30}}, "batch": 12, "preset": "nano", "start": "a", "k": 1}
    result |= {"device": "a CPU", "every": 1, "models": {}, "tau": {}}
    for minutes, told in ((None, "30 steps a stage"), (10, "10 minutes a stage")):
        write_table(result | {"minutes": minutes}, tmp_path / "table.md")
        assert f"{told} and model on a CPU (360 crops" in (tmp_path / "table.md").read_text()


def test_only_without_segmentation_eq_16_is_missing(small_model: MagicFuse, batch: Batch) -> None:
    assert set(ABLATIONS["full"].mkf(small_model, batch)) == {"fusion", "segmentation"}
    assert set(ABLATIONS["without-segmentation"].mkf(small_model, batch)) == {"fusion"}
    assert {name for name, a in ABLATIONS.items() if a.ikr} == {"without-restoration"}


def test_without_segmentation_neither_mkf_nor_its_target_depends_on_the_head(
    small_model: MagicFuse, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    taus: list[torch.Tensor] = []
    advance = small_model.advance

    def spy(streams: Streams, condition: torch.Tensor, step: Step, tau: torch.Tensor) -> Streams:
        taus.append(tau)
        return advance(streams, condition, step, tau)

    monkeypatch.setattr(small_model, "advance", spy)

    def loss(name: str, bias: float) -> float:
        with torch.no_grad():
            small_model.segmentation.conv2.bias[list(small_model.thermal_ids)] = bias
        seed_step(0, 0, 0)
        return float(ABLATIONS[name].mkf(small_model, batch)["fusion"])

    assert loss("full", -9.0) != loss("full", 9.0)
    assert all((tau < 1).all() for tau in taus)
    taus.clear()
    assert loss("without-segmentation", -9.0) == loss("without-segmentation", 9.0)
    assert all((tau == 1).all() for tau in taus), "Eq. 11 then leaves w as it is"


def test_without_restoration_the_degraded_image_is_taught(
    small_model: MagicFuse, batch: Batch
) -> None:

    def term(clean: torch.Tensor) -> torch.Tensor:
        seed_step(0, 0, 0)
        return degraded_loss(small_model, batch | {"clean": clean})["ikr"]

    loss = term(batch["clean"])
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in small_model.ikr.parameters())
    assert torch.equal(loss, term(1 - batch["clean"])), "it must not see the clean one"


@pytest.mark.parametrize("loss", [mkf_loss, degraded_loss])
def test_processes_run_the_networks_equally_often(
    small_preset: Preset, loss: Loss, batch: Batch
) -> None:
    """Batch norms that share statistics wait in each run for all other processes."""
    model = MagicFuse(small_preset.model_copy(update={"steps": [1, 2, 3]}))
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    model.ikr.register_forward_hook(count)

    def runs_of(step: int, part: int) -> int:
        nonlocal runs
        runs = 0
        seed_step(0, step, part)
        with torch.no_grad():
            loss(model, batch)
        return runs

    first = [runs_of(step, 0) for step in range(5)]
    assert first == [runs_of(step, 1) for step in range(5)] and len(set(first)) > 1


def test_variants_differ_in_what_they_lack_and_in_nothing_else(small_preset: Preset) -> None:
    for go_on in (False, True):
        for name, ablation in ABLATIONS.items():
            *before, fusion = ablation.stages(go_on)
            assert [s.name for s in before] == (["ikr"] if name == "without-restoration" else [])
            assert all(s.trained == ("ikr",) for s in before), "ckg relies on the shared context"
            assert fusion.trained == ("mkf", "segmentation") and fusion.frozen_statistics == go_on
            preset = build(ablation, small_preset).preset
            assert preset.steps == [small_preset.default_steps]
            assert preset.tau == (1.0 if name == "without-segmentation" else small_preset.tau)


def test_a_smaller_ckg_learns_its_teachers_output(small_preset: Preset, batch: Batch) -> None:
    torch.manual_seed(0)
    teacher = MagicFuse(small_preset).eval()
    enliven(teacher.ckg)
    smaller = small_preset.ckg.model_copy(update={"widths": [8, 8]})
    student = student_of(teacher, small_preset.model_copy(update={"name": "s", "ckg": smaller}))
    student.eval()
    loss = distillation_loss(teacher, teacher_steps=1)
    optimizer = torch.optim.AdamW(student.ckg.parameters(), lr=1e-2)
    values = []
    for _ in range(25):
        terms = loss(student, batch)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(terms["teacher"].detach()))
    assert values[-1] < 0.8 * values[0]


def test_a_student_of_another_autoencoder_is_refused(small_preset: Preset) -> None:
    other = small_preset.autoencoder.model_copy(update={"latent_channels": 8})
    with pytest.raises(MagicFuseError, match=r"student preset 'small': autoencoder is .*teacher"):
        student_of(MagicFuse(small_preset), small_preset.model_copy(update={"autoencoder": other}))
