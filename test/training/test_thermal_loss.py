"""The loss of the thermal estimate: what it asks for by day, at night, on people and off them."""

import pytest
import torch

from magicfuse_training.losses.thermal import (
    TYPICAL_LEVEL,
    contrast,
    contrast_loss,
    thermal_loss,
    unseen_loss,
)

DAY, NIGHT = torch.tensor([True]), torch.tensor([False])
PEOPLE = torch.zeros(1, 1, 64, 64)
PEOPLE[:, :, 24:40, 24:32] = 1
WEIGHT = 1 + 6 * PEOPLE
NOTHING = torch.zeros(1, 1, 64, 64, dtype=torch.bool)


def street(people: float, rest: float = 0.12) -> torch.Tensor:
    return rest + (people - rest) * PEOPLE


def test_contrast_is_that_of_people_against_their_surroundings() -> None:
    image = street(people=0.5, rest=0.2)
    image[:, :, :4] = 0.9  # far from them
    assert float(contrast(image, PEOPLE)) == pytest.approx(0.3, abs=1e-6)
    assert float(contrast(image, torch.zeros_like(PEOPLE))) == 0
    assert float(contrast(image, torch.ones_like(PEOPLE))) == 0  # nothing is around them


def test_the_contrast_loss_is_over_where_people_stand_out() -> None:
    wanted = torch.tensor([0.3, 0.3])
    both = torch.cat([PEOPLE, torch.zeros_like(PEOPLE)])  # nobody in the second image

    def loss(people: float) -> float:
        return float(contrast_loss(street(people).repeat(2, 1, 1, 1), both, wanted))

    assert loss(0.12) > loss(0.2) > 0 == loss(0.5)


@pytest.mark.parametrize(("day", "seen"), [(DAY, 0.6), (NIGHT, 0.33)], ids=["day", "night"])
def test_missed_people_cost_more_than_a_brighter_street(day: torch.Tensor, seen: float) -> None:
    """At night half of their warmth is believed."""
    real = street(people=0.6)
    missed, brighter = street(people=0.08, rest=0.08), street(people=seen, rest=0.09)
    assert thermal_loss(missed, real, WEIGHT, NOTHING, day) > thermal_loss(
        brighter, real, WEIGHT, NOTHING, day
    )


def test_a_rim_colder_than_a_street_is_no_contrast() -> None:
    wanted = torch.tensor([0.3])
    warm, level, cold = (
        float(contrast_loss(street(people=0.2, rest=rest), PEOPLE, wanted))
        for rest in (0.15, TYPICAL_LEVEL, 0.0)
    )
    assert cold == pytest.approx(level) and 0 < level < warm


def test_people_at_night_count_less() -> None:
    real, missed = street(people=0.6), street(people=0.12)
    nobody = torch.ones_like(WEIGHT)
    lost = [
        thermal_loss(missed, real, WEIGHT, NOTHING, day)
        - thermal_loss(missed, missed, nobody, NOTHING, day)
        for day in (DAY, NIGHT)
    ]
    assert lost[0] > lost[1]


@pytest.mark.parametrize(("day", "level"), [(DAY, 0.075), (NIGHT, 0.059)], ids=["day", "night"])
@pytest.mark.parametrize("real", [0.02, 0.6])
def test_off_people_nothing_but_a_level_is_expected(
    day: torch.Tensor, level: float, real: float
) -> None:
    street, nobody = torch.full((1, 1, 64, 64), real), torch.ones(1, 1, 64, 64)
    levels = torch.arange(0, 0.7, 0.005)
    losses = [
        float(thermal_loss(torch.full_like(street, float(x)), street, nobody, NOTHING, day))
        for x in levels
    ]
    assert float(levels[losses.index(min(losses))]) == pytest.approx(level, abs=0.005)


@pytest.mark.parametrize("day", [DAY, NIGHT], ids=["day", "night"])
def test_a_warm_cone_costs_more_than_a_warm_patch_of_street(day: torch.Tensor) -> None:
    real, wrong, nobody = street(people=0.1), street(people=0.3), torch.ones_like(WEIGHT)
    cone, patch = (
        float(thermal_loss(wrong, real, nobody, lookalike, day))
        for lookalike in (PEOPLE.bool(), NOTHING)
    )
    assert cone > patch + 0.1


def test_without_people_it_is_finite_and_has_a_gradient() -> None:
    estimate = torch.full((2, 1, 64, 64), 0.1, requires_grad=True)
    real, nobody = torch.rand(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    loss = thermal_loss(estimate, real, nobody, NOTHING, torch.tensor([True, False]))
    loss.backward()
    assert estimate.grad is not None and bool(torch.isfinite(estimate.grad).all())


def test_an_estimate_that_nothing_checks_lights_up_people_alone() -> None:
    def loss(people: float) -> float:
        return float(unseen_loss(street(people, rest=TYPICAL_LEVEL), PEOPLE))

    band = street(people=0.3, rest=TYPICAL_LEVEL)
    band[:, :, 20:44] = 0.3  # all that stands where people are: the contrast with the rest is met
    assert unseen_loss(band, PEOPLE) > 10 * loss(0.3)
    assert loss(0.3) == pytest.approx(0, abs=1e-6)
    assert loss(0.9) > 0.1  # hotter than people are
