# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The losses of the thermal estimate: its level, the contrast of people, and its uncertainty."""

import math
from functools import partial

import pytest
import torch

from magicfuse_ros.bundle import ThermalUncertainty
from magicfuse_ros.thermal import standard_deviations
from magicfuse_training.losses.thermal import (
    Estimate,
    contrast,
    contrast_loss,
    laplace_nll,
    read_estimate,
    unseen_loss,
)
from magicfuse_training.losses.thermal import thermal_loss as thermal_loss_of
from magicfuse_training.preset import load_preset

OUTPUT = load_preset("nano").losses.output
assert OUTPUT is not None
WEIGHTS = OUTPUT.thermal
STREET = WEIGHTS.street
thermal_loss = partial(thermal_loss_of, weights=WEIGHTS)
DAY, NIGHT = torch.tensor([True]), torch.tensor([False])
PEOPLE = torch.zeros(1, 1, 64, 64)
PEOPLE[:, :, 24:40, 24:32] = 1
WEIGHT = 1 + 6 * PEOPLE
NOTHING = torch.zeros(1, 1, 64, 64, dtype=torch.bool)


def street(people: float, rest: float = 0.12) -> torch.Tensor:
    return rest + (people - rest) * PEOPLE


def test_contrast_is_that_of_people_against_their_surroundings() -> None:
    image = street(people=0.5, rest=0.2)
    image[:, :, :4] = 0.9  # far away from them
    assert float(contrast(image, PEOPLE, STREET)) == pytest.approx(0.3, abs=1e-6)
    assert float(contrast(image, torch.zeros_like(PEOPLE), STREET)) == 0
    assert float(contrast(image, torch.ones_like(PEOPLE), STREET)) == 0  # they have no surroundings


def test_the_contrast_loss_is_over_where_people_stand_out() -> None:
    wanted = torch.tensor([0.3, 0.3])
    both = torch.cat([PEOPLE, torch.zeros_like(PEOPLE)])  # nobody in the second image

    def loss(people: float) -> float:
        return float(contrast_loss(street(people).repeat(2, 1, 1, 1), both, wanted, STREET))

    assert loss(0.12) > loss(0.2) > 0 == loss(0.5)


def level(image: torch.Tensor) -> Estimate:
    return Estimate(image, None)


@pytest.mark.parametrize("day", [DAY, NIGHT], ids=["day", "night"])
def test_missed_people_cost_more_than_a_brighter_street(day: torch.Tensor) -> None:
    real = street(people=0.6)
    missed, brighter = street(people=0.12), street(people=0.6, rest=0.15)
    assert thermal_loss(level(missed), real, WEIGHT, NOTHING, day) > thermal_loss(
        level(brighter), real, WEIGHT, NOTHING, day
    )


def test_a_rim_colder_than_a_street_is_no_contrast() -> None:
    wanted = torch.tensor([0.3])
    warm, level, cold = (
        float(contrast_loss(street(people=0.2, rest=rest), PEOPLE, wanted, STREET))
        for rest in (0.15, STREET, 0.0)
    )
    assert cold == pytest.approx(level) and 0 < level < warm


def test_people_at_night_count_less() -> None:
    real, missed = street(people=0.6), street(people=0.12)
    by_day, at_night = (
        float(thermal_loss(level(missed), real, WEIGHT, NOTHING, day)) for day in (DAY, NIGHT)
    )
    assert by_day > at_night


@pytest.mark.parametrize("day", [DAY, NIGHT], ids=["day", "night"])
@pytest.mark.parametrize("real", [0.02, 0.6])
def test_every_pair_counts_also_off_people(day: torch.Tensor, real: float) -> None:
    """A pair without boxes, from any camera, teaches its own temperatures, closer to a street's."""
    street, nobody = torch.full((1, 1, 64, 64), real), torch.ones(1, 1, 64, 64)
    levels = torch.arange(0, 0.7, 0.005)
    losses = [
        float(thermal_loss(level(torch.full_like(street, float(x))), street, nobody, NOTHING, day))
        for x in levels
    ]
    spread = WEIGHTS.spread.day if bool(day) else WEIGHTS.spread.night
    taught = STREET + spread * (real - STREET)
    assert float(levels[losses.index(min(losses))]) == pytest.approx(taught, abs=0.005)


def test_people_are_taught_their_real_temperature() -> None:
    real = street(people=0.5, rest=STREET)
    costs = [
        float(thermal_loss(level(street(x, STREET)), real, WEIGHT, NOTHING, NIGHT))
        for x in (0.4, 0.5, 0.6)
    ]
    assert costs[1] < min(costs[0], costs[2])


@pytest.mark.parametrize("day", [DAY, NIGHT], ids=["day", "night"])
def test_a_warm_cone_costs_more_than_a_warm_patch_of_street(day: torch.Tensor) -> None:
    real, wrong, nobody = street(people=0.1), street(people=0.3), torch.ones_like(WEIGHT)
    cone, patch = (
        float(thermal_loss(level(wrong), real, nobody, lookalike, day))
        for lookalike in (PEOPLE.bool(), NOTHING)
    )
    assert cone > patch + 0.1


def test_without_people_it_is_finite_and_has_a_gradient() -> None:
    estimate = torch.full((2, 1, 64, 64), 0.1, requires_grad=True)
    real, nobody = torch.rand(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    loss = thermal_loss(level(estimate), real, nobody, NOTHING, torch.tensor([True, False]))
    loss.backward()
    assert estimate.grad is not None and bool(torch.isfinite(estimate.grad).all())


def test_the_scale_that_costs_least_is_the_mean_error() -> None:
    error = torch.tensor([0.02, -0.04, 0.06, 0.08]).reshape(1, 1, 2, 2)
    scales = torch.arange(0.01, 0.2, 0.005)
    losses = [float(laplace_nll(error, torch.full_like(error, float(b)))) for b in scales]
    assert float(scales[losses.index(min(losses))]) == pytest.approx(0.05, abs=0.003)


def test_the_scale_learns_from_the_error_and_the_mean_does_not_learn_from_the_scale() -> None:
    real, nobody = torch.rand(1, 1, 64, 64), torch.ones(1, 1, 64, 64)

    def gradients(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        mean = torch.full((1, 1, 64, 64), 0.3, requires_grad=True)
        b = torch.full((1, 1, 64, 64), scale, requires_grad=True)
        thermal_loss(Estimate(mean, b), real, nobody, NOTHING, DAY).backward()
        assert mean.grad is not None and b.grad is not None
        return mean.grad, b.grad

    (mean, sure), (same, unsure) = gradients(0.01), gradients(0.9)
    assert torch.equal(mean, same)
    assert sure.mean() < 0 < unsure.mean()


def test_training_reads_a_decoded_image_as_the_runtime_does() -> None:
    coding = ThermalUncertainty(lowest=0.004, highest=0.4)
    codes = torch.tensor([0, 77, 255]) / 255
    image = torch.stack([torch.full((3,), 0.25), torch.zeros(3), codes])[None, :, None]
    estimate = read_estimate(image, coding)
    assert estimate.scale is not None and torch.equal(estimate.mean, image[:, :1])
    deviations = (255 * math.sqrt(math.pi / 2) * estimate.scale).round().clamp(max=255)
    assert deviations.flatten().tolist() == standard_deviations(coding)[[0, 77, 255]].tolist()
    gray = read_estimate(torch.full((1, 3, 2, 2), 0.5), None)
    assert gray.scale is None and gray.mean == pytest.approx(0.5)


def test_a_quarter_of_the_errors_lies_below_what_is_surely_warmer() -> None:
    mean, scale = torch.full((1, 1, 200, 200), 0.3), torch.full((1, 1, 200, 200), 0.05)
    torch.manual_seed(0)
    real = torch.distributions.Laplace(mean, scale).sample()
    below = (real < Estimate(mean, scale).surely()).float().mean()
    assert float(below) == pytest.approx(0.25, abs=0.01)


def test_an_estimate_that_nothing_checks_lights_up_people_alone() -> None:
    def loss(people: float) -> float:
        return float(unseen_loss(street(people, rest=STREET), PEOPLE, WEIGHTS))

    band = street(people=0.3, rest=STREET)
    band[:, :, 20:44] = 0.3  # everything at the height of people: the contrast with the rest is met
    assert unseen_loss(band, PEOPLE, WEIGHTS) > loss(0.3) + 0.1
    assert loss(0.3) == pytest.approx(0, abs=1e-6)
    assert loss(0.9) > 0.1  # hotter than people
    structured = street(people=0.3, rest=0.15)  # within the range of streets: walls, engines
    assert float(unseen_loss(structured, PEOPLE, WEIGHTS)) == pytest.approx(0, abs=1e-6)
