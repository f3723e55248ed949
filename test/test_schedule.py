# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from magicfuse_ros.bundle.schedule import Schedule, Step, ddim_steps


def test_zero_terminal_snr_changes_the_last_level_and_not_the_first() -> None:
    plain = Schedule(zero_terminal_snr=False).alphas_cumprod()
    abar = Schedule(zero_terminal_snr=True).alphas_cumprod()
    assert abar[-1] == 0 < plain[-1]
    assert abar[0] == pytest.approx(plain[0]) == pytest.approx(1 - 0.00085)


def test_alpha_bar_is_the_running_product_of_one_minus_beta() -> None:
    schedule = Schedule(train_steps=3, beta_start=0.1, beta_end=0.3, zero_terminal_snr=False)
    np.testing.assert_allclose(schedule.alphas_cumprod(), [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])


@given(st.integers(2, 2000), st.booleans())
def test_alpha_bar_falls_within_0_to_1(train_steps: int, zero_terminal: bool) -> None:
    abar = Schedule(train_steps=train_steps, zero_terminal_snr=zero_terminal).alphas_cumprod()
    assert abar.shape == (train_steps,)
    assert (np.diff(abar) < 0).all()
    assert abar[-1] >= 0 and abar[0] < 1


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [999]), (2, [999, 499]), (4, [999, 749, 499, 249])]
)
def test_trailing_grid_starts_at_the_last_level(steps: int, expected: list[int]) -> None:
    assert Schedule().trailing_timesteps(steps) == expected


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [0]), (4, [750, 500, 250, 0]), (25, list(range(960, -1, -40)))]
)
def test_leading_grid_ends_at_the_first_level(steps: int, expected: list[int]) -> None:
    assert Schedule().leading_timesteps(steps) == expected


@given(st.data())
def test_every_grid_is_one_that_ddim_accepts(data: st.DataObject) -> None:
    train_steps = data.draw(st.integers(2, 1200))
    steps = data.draw(st.integers(1, train_steps))
    schedule = Schedule(train_steps=train_steps)
    trailing, leading = schedule.trailing_timesteps(steps), schedule.leading_timesteps(steps)
    assert trailing[0] == train_steps - 1 and leading[-1] == 0
    for grid in (trailing, leading):
        assert len(ddim_steps(schedule, grid)) == steps


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_grids_that_do_not_exist_are_refused(steps: int) -> None:
    for grid in (Schedule().trailing_timesteps, Schedule().leading_timesteps):
        with pytest.raises(ValueError, match=f"steps is {steps}; expected 1 to 1000"):
            grid(steps)


def test_ddim_steps_are_explicit_pairs_that_end_without_noise() -> None:
    schedule = Schedule()
    abar = schedule.alphas_cumprod()
    first, last = ddim_steps(schedule, [999, 499])
    assert first == Step(999, 0.0, float(abar[499]))
    assert last == Step(499, float(abar[499]), 1.0)


@pytest.mark.parametrize("timesteps", [[], [499, 999], [499, 499], [1000], [5, -1]])
def test_wrong_timesteps_are_refused(timesteps: list[int]) -> None:
    with pytest.raises(ValueError, match="timesteps are"):
        ddim_steps(Schedule(), timesteps)


def test_unknown_and_impossible_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate({"beta": 0.1})
    with pytest.raises(ValidationError):
        Schedule(beta_end=1.0)
