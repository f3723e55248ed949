# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Losses: what is free, what costs, and how labels that know less than a class count."""

import math

import pytest
import torch
from torch.nn import functional as F
from training_process import small_crops

from magicfuse_training.data.classes import IGNORE, LOOKALIKE, STATIC
from magicfuse_training.losses.config import HeatConfig, LossConfig
from magicfuse_training.losses.image import (
    chroma,
    coarse_l1,
    detail_l1,
    fused_luma,
    fusion_loss,
    luma,
    sobel,
)
from magicfuse_training.losses.segmentation import dice_loss, resize_label, segmentation_loss
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.head import head_loss
from magicfuse_training.stages.stage import to_device
from magicfuse_training.stages.stages import ikr_loss

WEIGHTS = torch.ones(11)
DAY = torch.tensor([True])
WEIGHED = LossConfig(contrast=1, texture=1, colour=1, class_weights=[])
NANO = load_preset("nano").losses.heat
assert NANO is not None


def heat(gain: float) -> HeatConfig:
    return NANO.model_copy(update={"gain": gain})


def scores(winner: int) -> torch.Tensor:
    logits = torch.zeros(1, 11, 4, 4)
    logits[:, winner] = 20.0
    return logits


def labels(value: int) -> torch.Tensor:
    return torch.full((1, 4, 4), value)


@pytest.mark.parametrize("winner", [0, 3, 7])
def test_a_static_pixel_accepts_every_static_class(winner: int) -> None:
    assert segmentation_loss(scores(winner), labels(STATIC), WEIGHTS) < 1e-3


@pytest.mark.parametrize("winner", [8, 9, 10])
def test_a_static_pixel_refuses_every_moving_class(winner: int) -> None:
    assert segmentation_loss(scores(winner), labels(STATIC), WEIGHTS) > 10


def test_a_set_of_classes_costs_minus_the_log_of_their_summed_probability() -> None:
    label = labels(242)  # of IDD's vehicles: car or bicyclist
    logits = torch.log(torch.tensor([0.05] * 8 + [0.1, 0.2, 0.3]))[:, None, None]
    logits = logits.expand(11, 4, 4)[None]
    assert float(segmentation_loss(logits, label, WEIGHTS)) == pytest.approx(
        -math.log(0.4), abs=1e-5
    )


def test_a_pixel_of_which_nothing_is_known_costs_nothing_and_dilutes_nothing() -> None:
    label = labels(3)
    exact = float(segmentation_loss(scores(5), label, WEIGHTS))
    label[..., 2:] = IGNORE
    assert float(segmentation_loss(scores(5), label, WEIGHTS)) == pytest.approx(exact, rel=1e-4)
    logits = scores(5).requires_grad_()
    segmentation_loss(logits, labels(IGNORE), WEIGHTS).backward()
    assert logits.grad is not None and not logits.grad.any()


def test_a_label_that_shrinks_stays_where_it_is() -> None:
    label = torch.arange(16).expand(1, 8, 16)  # every pixel says its column
    torch.manual_seed(0)
    small = torch.stack([resize_label(label, torch.Size((4, 4))) for _ in range(400)]).float()
    assert small.shape[1:] == (1, 4, 4)
    assert small[..., 0].mean() == pytest.approx(1.5, abs=0.2)
    assert small[..., 3].mean() == pytest.approx(13.5, abs=0.2)


def test_every_image_has_its_own_weights() -> None:
    logits = torch.cat([scores(3), scores(5)])
    label = torch.cat([labels(3), labels(9)])  # the first is right, the second is wrong
    label[1, 0, 0] = 242  # IDD's vehicles, at the lower of the two weights of car and bicyclist
    weights = torch.ones(2, 11)
    weights[1, 9], weights[1, 8] = 3.0, 0.25
    cost = -logits[1, :, 0, 0].log_softmax(0)
    of_set = -logits[1, [8, 10], 0, 0].sub(logits[1, :, 0, 0].logsumexp(0)).logsumexp(0)
    expected = (15 * 3 * cost[9] + 0.25 * of_set) / (16 + 15 * 3 + 0.25)
    assert float(segmentation_loss(logits, label, weights)) == pytest.approx(float(expected), 1e-4)


def test_crops_at_night_have_weights_of_their_own(small_preset: Preset) -> None:
    weights = [1.0] * 9 + [8.0, 1.0]
    losses = small_preset.losses.model_copy(
        update={"class_weights_at_night": weights, "teacher": 0.0, "state": 0.0, "dice": 0.0}
    )
    model = MagicFuse(small_preset.model_copy(update={"losses": losses}))
    logits = torch.cat([scores(3), scores(3)])
    label = torch.cat([labels(3), labels(3)])
    label[:, 0, 0] = 9
    teacher = torch.full_like(label, IGNORE)
    found = {}
    for night in (0.0, 1.0):
        batch = {"label": label, "teacher": teacher, "has_clean": torch.tensor([1.0, 1 - night])}
        found[night] = float(head_loss(model, logits, logits, batch))
    assert found[1.0] > 1.5 * found[0.0]


def test_a_lookalike_counts_more_than_another_static_pixel() -> None:
    label = labels(STATIC)
    label[..., 0, 0] = LOOKALIKE
    wrong = {}
    for name, pixel in (("lookalike", (0, 0)), ("static", (2, 2))):
        logits = scores(3)
        logits[:, 9, pixel[0], pixel[1]] = 40.0
        wrong[name] = float(segmentation_loss(logits, label, WEIGHTS))
    assert wrong["lookalike"] > 4 * wrong["static"] > 0


def test_an_ignored_pixel_costs_nothing_and_moves_nothing() -> None:
    logits = scores(9).requires_grad_()
    loss = segmentation_loss(logits, labels(IGNORE), WEIGHTS) + dice_loss(logits, labels(IGNORE))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0 and logits.grad is not None and not logits.grad.any()


def test_the_right_class_is_free_and_a_wrong_one_is_not() -> None:
    for loss in (lambda s, t: segmentation_loss(s, t, WEIGHTS), dice_loss):
        assert loss(scores(9), labels(9)) < 0.01
        assert loss(scores(3), labels(9)) > 0.9


def test_the_parts_of_the_fusion_loss_are_weighed() -> None:
    """One part at a time, on images that differ from their targets by known amounts."""
    visible, thermal = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 1, 8, 8)
    lighter, redder = visible + 0.1, visible + torch.tensor([0.1, 0, 0])[:, None, None]
    weights = {"contrast": 0.0, "texture": 0.0, "colour": 0.0, "class_weights": []}
    for name, fused, expected in (
        ("contrast", lighter, 3 * 0.1),
        ("colour", lighter, 0.0),
        ("texture", lighter, 0.0),
        ("colour", redder, 3 * 0.1 * (0.713 * 0.701 + 0.564 * 0.299)),
    ):
        config = LossConfig.model_validate(weights | {name: 3.0})
        loss = float(fusion_loss(fused, visible, thermal, DAY, config))
        assert loss == pytest.approx(expected, abs=1e-5)


def test_the_ideal_fused_image_costs_nothing_where_the_visible_is_stronger() -> None:
    visible = torch.rand(1, 3, 16, 16) * 0.5 + 0.4
    thermal = torch.full((1, 1, 16, 16), 0.1)
    assert fusion_loss(visible, visible, thermal, DAY, WEIGHED) == 0
    thermal[..., 4:8, 4:8] = 1.0
    assert fusion_loss(visible, visible, thermal, DAY, WEIGHED) > 0.01


def test_heat_makes_people_stand_out_of_a_bright_street_in_its_own_colours() -> None:
    config = WEIGHED.model_copy(update={"heat": heat(2.0)})
    visible = torch.tensor([0.6, 0.5, 0.3])[:, None, None].expand(1, 3, 16, 16).clone()
    thermal = torch.full((1, 1, 16, 16), NANO.warm)  # no warmer than streets
    assert fusion_loss(visible, visible, thermal, DAY, config) == 0
    thermal[..., 4:8, 4:8] = NANO.warm + 0.1
    lit = visible.clone()
    lit[..., 4:8, 4:8] += 0.2  # twice their excess of 0.1
    torch.testing.assert_close(fused_luma(visible, thermal, heat(2.0), DAY), luma(lit))
    assert float(fusion_loss(lit, visible, thermal, DAY, config)) == pytest.approx(0, abs=1e-6)
    assert fusion_loss(visible, visible, thermal, DAY, config) > 0.01
    # With the published Eq. 15, the same people may be invisible.
    assert fusion_loss(lit, visible, thermal, DAY, WEIGHED) > 0.01


def test_heat_keeps_the_shading_of_the_warmest() -> None:
    shades = torch.linspace(0.2, 0.5, 16).expand(1, 3, 16, 16)
    warm = torch.full((1, 1, 16, 16), 0.5)
    added = fused_luma(shades, warm, heat(3.0), DAY) - luma(shades)
    torch.testing.assert_close(added, torch.full_like(added, NANO.limit))


def test_heat_at_night_tells_more_by_less() -> None:
    dark, faint = torch.full((1, 3, 4, 4), 0.2), torch.full((1, 1, 4, 4), NANO.warm_at_night + 0.01)
    assert torch.equal(
        fused_luma(dark, faint, heat(4.0), DAY), fused_luma(dark, faint * 0, heat(4.0), DAY)
    )
    added = fused_luma(dark, faint, heat(4.0), ~DAY) - luma(dark)
    torch.testing.assert_close(added, torch.full_like(added, NANO.at_night * 4.0 * 0.01))


def test_sobel_is_the_slope_of_a_ramp() -> None:
    ramp = torch.arange(8.0).repeat(8, 1)[None, None] / 8
    torch.testing.assert_close(sobel(ramp)[..., 1:-1], torch.full((1, 1, 8, 6), 2 / 8))


def test_gray_has_no_chroma_and_its_own_luma() -> None:
    gray = torch.rand(1, 1, 4, 4).expand(-1, 3, -1, -1)
    torch.testing.assert_close(luma(gray), gray[:, :1])
    assert chroma(gray).abs().max() < 1e-6


def test_weights_of_zero_hide_a_sample() -> None:
    a, b = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    b[1] = 0
    hidden = torch.tensor([0.0, 1.0])[:, None, None, None]
    assert detail_l1(a, b, hidden) == 0 < detail_l1(a, b, 1 - hidden)


def test_the_coarse_loss_sees_exposure_and_no_texture() -> None:
    image, one = torch.full((2, 3, 32, 32), 0.4), torch.ones(2, 1, 1, 1)
    texture = 0.1 * (torch.arange(32) % 2 * 2.0 - 1)
    assert float(coarse_l1(image + texture, image, one)) == pytest.approx(0, abs=1e-6)
    assert float(coarse_l1(image + 0.1, image, one)) == pytest.approx(0.1, abs=1e-6)


class Oracle(torch.nn.Module):
    """Knows x0, and derives the prediction from what the sampler shows it."""

    def __init__(self, model: MagicFuse, x0: torch.Tensor) -> None:
        super().__init__()
        self.noise, self.x0 = model.prediction == "epsilon", x0
        self.abar = torch.tensor(model.preset.schedule.alphas_cumprod(), dtype=torch.float32)

    def forward(self, condition: torch.Tensor, seen: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = self.abar[t.long()][:, None, None, None]
        if self.noise:
            return (seen - a.sqrt() * self.x0) / (1 - a).sqrt()  # seen: z
        return (seen - self.x0) / (1 - a).sqrt()  # seen: sqrt(abar) z


@pytest.mark.parametrize("form", ["small_model", "small_paper"])
def test_streams_learn_what_the_sampler_asks_of_them(
    form: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: MagicFuse = request.getfixturevalue(form)
    batch = to_device(small_crops()[range(3)], torch.device("cpu"))
    fixed = model.encoder.encode(batch["clean"]).detach()
    monkeypatch.setattr(model.encoder, "encode", lambda *_: fixed)
    monkeypatch.setitem(model._modules, "ikr", Oracle(model, fixed))
    assert float(ikr_loss(model, batch)["ikr"]) < 1e-4


def test_light_where_nobody_is_costs_extra() -> None:
    weights = WEIGHED.model_copy(update={"heat": heat(4.0)})
    visible, thermal = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 1, 32, 32), 0.3)
    people = torch.zeros(1, 1, 32, 32)
    people[..., 8:24, 12:20] = 1

    def cost(lit: torch.Tensor) -> float:
        return float(
            fusion_loss(visible + NANO.limit * lit, visible, thermal, DAY, weights, people)
        )

    everywhere, wider = torch.ones_like(people), F.max_pool2d(people, 9, 1, 4)
    assert cost(people) < 1e-5
    assert cost(wider) > cost(people) + 1
    assert cost(everywhere) > cost(wider)
