# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`paper` as printed: its equations checked by hand, and Table 1."""

import math

import pytest
import torch
from torch import Tensor, nn

from magicfuse_training.diffusion import algebra
from magicfuse_training.losses.image import fusion_loss
from magicfuse_training.losses.segmentation import segmentation_loss
from magicfuse_training.model import MagicFuse, Streams
from magicfuse_training.optimizer import AdamConfig, SGDConfig
from magicfuse_training.preset import load_preset
from magicfuse_training.stages import stages
from magicfuse_training.stages.randomness import seed_step
from magicfuse_training.stages.stages import STAGES, ckg_loss, ikr_loss, mkf_loss

PAPER = load_preset("paper")


class Zero(nn.Module):
    """Predicts zero noise and records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.t: list[Tensor] = []

    def forward(self, condition: Tensor, z: Tensor, t: Tensor) -> Tensor:
        self.t.append(t)
        return torch.zeros_like(z)


def batch(count: int) -> dict[str, Tensor]:
    weight = torch.ones(count, 1, 128, 160)
    weight[..., :40, :40] = 7  # people
    return {
        "degraded": torch.rand(count, 3, 128, 160),
        "clean": torch.rand(count, 3, 128, 160),
        "thermal": torch.rand(count, 1, 128, 160),
        "weight": weight,
        "has_clean": torch.ones(count),
        "has_thermal": torch.ones(count),
        "label": torch.zeros(count, 128, 160, dtype=torch.int64),
        "teacher": torch.zeros(count, 128, 160, dtype=torch.int64),
    }


def test_table_1() -> None:
    rows = {}
    for name in ("ikr", "ckg", "mkf"):
        stage = STAGES[name].overridden_by(PAPER)
        kind, rate = type(stage.optimizer), stage.optimizer.learning_rate
        factors = [stage.schedule.factor(0, p, epoch) for p, epoch in ((0, 0), (0.9, 9.9))]
        assert factors == [1, 1], "no warm-up, no decay within ten epochs"
        rows[name] = (kind, rate, stage.batch, stage.trained)
    assert rows == {
        "ikr": (AdamConfig, 1e-4, 16, ("encoder.context", "ikr")),
        "ckg": (AdamConfig, 1e-5, 4, ("ckg",)),
        "mkf": (SGDConfig, 1e-3, 1, ("mkf", "segmentation")),
    }
    assert PAPER.schedule.train_steps == 1000
    assert PAPER.timesteps(25) == [*range(960, -1, -40)] and PAPER.steps == [25]


@pytest.mark.parametrize(("stage", "unet"), [(ikr_loss, "ikr"), (ckg_loss, "ckg")])
def test_eq_7_is_the_plain_mean_square_of_the_noise_at_uniform_t(
    small_paper: MagicFuse, monkeypatch: pytest.MonkeyPatch, stage: stages.Stage, unet: str
) -> None:
    zero, drawn = Zero(), []
    monkeypatch.setitem(small_paper._modules, unet, zero)
    noise = torch.randn_like

    def kept(x: Tensor) -> Tensor:
        drawn.append(noise(x))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn_like", kept)
    torch.manual_seed(0)
    (loss,) = stage(small_paper, batch(3)).values()
    eps = drawn[-1]
    assert float(loss) == pytest.approx(float(eps.square().mean()), rel=1e-5), (
        "people count no more"
    )
    monkeypatch.setattr(torch, "randn_like", noise)
    monkeypatch.setattr(small_paper.encoder, "encode", lambda x: torch.zeros(len(x), 8, 1, 1))
    monkeypatch.setattr(stages, "_latent_size", lambda *_: (1, 1))
    zero.t.clear()
    stage(small_paper, many(2000))
    (t,) = zero.t
    on_grid = torch.isin(t.long(), torch.tensor(small_paper.preset.timesteps(2)))
    assert float(on_grid.float().mean()) < 0.02, "two of 1000 levels are on the grid"
    assert 0.4 < float((t < 500).float().mean()) < 0.6 and float(t.max()) > 950


def many(count: int) -> dict[str, Tensor]:
    """Return a batch whose images are never read."""
    return batch(1) | {
        "degraded": torch.zeros(count, 3, 8, 8),
        "clean": torch.zeros(count, 3, 8, 8),
        "thermal": torch.zeros(count, 1, 8, 8),
        "has_clean": torch.ones(count),
        "has_thermal": torch.ones(count),
    }


def test_eq_8_mixes_the_noise() -> None:
    z, ikr, ckg = (torch.full((1, 1, 1, 1), v) for v in (0.5, 1.0, -2.0))
    eps, x0 = algebra.fuse(
        "epsilon", torch.tensor(0.25), z, (ikr, ikr), (ckg, ckg), torch.tensor(0.64)
    )
    assert float(eps) == pytest.approx(0.25 * 1 + 0.75 * -2)
    assert float(x0) == pytest.approx((0.5 - 0.6 * -1.25) / 0.8)


def test_eq_11_limits_w_where_a_thermal_class_is_best(
    small_paper: MagicFuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = next(c.id for c in small_paper.preset.classes if c.thermal)
    state = torch.zeros(1, 9, 1, 3)
    state[0, person, 0, :2] = 1.0
    w = torch.tensor([0.9, 0.2, 0.9]).reshape(1, 1, 1, 3)
    monkeypatch.setitem(small_paper._modules, "mkf", Constant(w, state))
    pair = (torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 3))
    one = torch.ones(1)
    limited, _ = small_paper.weigh(
        pair, pair, pair[0], state, one, torch.full((1, 1, 1, 1), 0.5), 0.4 * one, None
    )
    assert limited.flatten().tolist() == pytest.approx([0.4, 0.2, 0.9])


class Constant(nn.Module):
    """Stand-in for F."""

    def __init__(self, w: Tensor, z_seg: Tensor) -> None:
        super().__init__()
        self.answer = (w, z_seg)

    def forward(self, *_: Tensor) -> tuple[Tensor, Tensor]:
        return self.answer


def test_eq_15_by_hand() -> None:
    """Gray images with one edge: contrast, texture and colour, weighted 6, 40 / 4 and 5."""
    visible = torch.full((1, 3, 6, 8), 0.2)
    visible[..., 4:] = 0.6  # Sobel's |gx| is 4 x 0.4 in two columns
    thermal = torch.full((1, 1, 6, 8), 0.5)
    fused = torch.full((1, 3, 6, 8), 0.5)
    fused[:, 0] += 0.1  # redder: luma 0.5299, Cb -0.0169, Cr 0.0500
    luma_error = (abs(0.5299 - 0.5) + abs(0.5299 - 0.6)) / 2  # the maximum is 0.5, then 0.6
    texture_error = 2 / 8 * 4 * 0.4  # two columns of eight, before the division by 4
    colour_error = 0.0299 * 0.564 + (0.1 - 0.0299) * 0.713
    expected = 6 * luma_error + 10 * texture_error + 5 * colour_error
    day = torch.tensor([True])
    loss = float(fusion_loss(fused, visible, thermal, day, PAPER.losses))
    assert loss == pytest.approx(expected, rel=1e-4)


def test_eq_15_is_against_what_the_streams_put_out(
    small_paper: MagicFuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Algorithm 1, lines 18 and 19: the clean and the thermal image are not used."""

    def loss(**other: Tensor) -> float:
        seed_step(0, 0, 0)
        return float(mkf_loss(small_paper, fixed | other)["fusion"].detach())

    fixed = batch(1)
    base = loss()
    assert loss(clean=1 - fixed["clean"], thermal=1 - fixed["thermal"]) == base
    assert loss(degraded=1 - fixed["degraded"]) != base

    seen: list[tuple[Tensor, ...]] = []

    def kept(*images: Tensor, **_: Tensor) -> Tensor:
        seen.append(images)
        return images[0].mean()

    monkeypatch.setattr(stages, "fusion_loss", kept)
    advance, ends = MagicFuse.advance, []

    def followed(model: MagicFuse, *given: object) -> Streams:
        ends.append(advance(model, *given))
        return ends[-1]

    monkeypatch.setattr(MagicFuse, "advance", followed)
    loss()
    (_, visible, thermal, _, weights), end = seen[0], ends[-1]
    assert weights is small_paper.preset.losses and end.x0_ikr is not None
    with torch.no_grad():
        _, *details = small_paper.encoder(fixed["degraded"])
        restored, heat = (small_paper.decoder(x0, *details) for x0 in (end.x0_ikr, end.x0_ckg))
    torch.testing.assert_close(visible, restored.clamp(0, 1))
    gray = (heat * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(thermal, gray.clamp(0, 1))


def test_eq_16_is_the_weighed_cross_entropy_and_nothing_else() -> None:
    logits = torch.zeros(1, 9, 1, 2)
    logits[0, 1, 0, 0] = math.log(8.0)  # softmax: 8 / 16
    label = torch.tensor([[[1, 4]]])
    weights = torch.tensor(PAPER.losses.class_weights)
    expected = (0.8 * math.log(2) + 4 * math.log(9)) / (0.8 + 4)
    assert float(segmentation_loss(logits, label, weights)) == pytest.approx(expected, rel=1e-5)
    extra = PAPER.losses
    assert (extra.dice, extra.teacher, extra.state, extra.heat, extra.output) == (
        0,
        0,
        0,
        None,
        None,
    )
