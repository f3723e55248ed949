# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Deadline control against cameras and costs that the test makes up; nothing here takes time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.deadline import (
    COSTS,
    FITS,
    MOST_PATIENCE,
    PATIENCE,
    RAISES,
    CameraPeriod,
    DeadlineControl,
    Mode,
    Plan,
    Share,
)
from magicfuse_ros.errors import MagicFuseError

PERIOD = 0.1
GRIDS = (1, 2, 4)
NEAREST = 0.6 + 1e-6  # of a period
SETTLED = 4 * (COSTS + PATIENCE) + 20  # from the last rung to the first


class Drive:
    """A camera and a machine; `ms` is what encoder and decoder, ikr, ckg + mkf of a step cost."""

    def __init__(
        self, mode: Mode = "auto", steps: int = 0, target: float = 0.0, period: float = PERIOD
    ) -> None:
        self.control = DeadlineControl(GRIDS, default_steps=max(GRIDS))
        self.control.configure(mode, steps, target)
        self.period = period
        self.now = 0.0
        self.restore_wanted = True
        self.share = Share()
        self.plans: list[Plan] = []
        self.begun: list[int] = []  # numbers of the images
        self.costs: list[float] = []
        self._number = 0

    def image(self, ms: tuple[float, float, float], slower: float = 1.0) -> bool:
        self.now += self.period
        self._number += 1
        if self.control.due(self.now) > self.now:
            return False
        plan = self.control.plan(self.restore_wanted, self.share)
        fixed, ikr, rest = (value * slower for value in ms)
        rest = 0.0 if plan.mode == "restore" else rest
        stages = {"encoder": fixed / 2, "ikr": ikr * plan.steps, "mkf": rest * plan.steps}
        cost = (fixed + plan.steps * (ikr + rest)) / 1e3
        self.plans.append(plan)
        self.begun.append(self._number)
        self.costs.append(cost)
        self.control.done(plan, cost, stages)
        return True

    def frames(self, count: int, ms: tuple[float, float, float], slower: float = 1.0) -> None:
        """Show images until `count` of them were begun."""
        while count:
            count -= self.image(ms, slower)

    @property
    def plan(self) -> Plan:
        return self.control.status().plan


def changes(plans: list[Plan]) -> int:
    return sum(1 for _ in groupby(plans)) - 1


def ladder(ms: tuple[float, float, float]) -> Iterator[tuple[tuple[str, int], float]]:
    fixed, ikr, rest = ms
    for k in sorted(GRIDS, reverse=True):
        yield ("fuse", k), (fixed + k * (ikr + rest)) / 1e3
    yield ("restore", 1), (fixed + ikr) / 1e3


COST = st.tuples(st.floats(1, 150), st.floats(0.5, 150), st.floats(0.5, 150))


@settings(deadline=None, max_examples=25)
@given(ms=COST, target=st.sampled_from([0.0, 0.05, 0.1, 0.25]))
def test_at_constant_cost_the_plan_settles_and_stays(
    ms: tuple[float, float, float], target: float
) -> None:
    drive = Drive(target=target)
    drive.frames(3 * SETTLED, ms)
    settled = len(drive.plans)
    drive.frames(2 * MOST_PATIENCE, ms)
    assert changes(drive.plans[:settled]) <= 4
    assert changes(drive.plans[settled - 1 :]) == 0


@settings(deadline=None, max_examples=25)
@given(before=st.lists(st.floats(0.2, 30), max_size=80), ms=COST)
def test_after_any_past_the_best_plan_that_fits_is_found(
    before: list[float], ms: tuple[float, float, float]
) -> None:
    drive = Drive()
    for slower in before:
        drive.frames(1, ms, slower)
    drive.frames(4 * (COSTS + MOST_PATIENCE), ms)
    comfortable = [rung for rung, cost in ladder(ms) if cost <= RAISES * PERIOD]
    fitting = [rung for rung, cost in ladder(ms) if cost <= FITS * PERIOD]
    order = [rung for rung, _ in ladder(ms)]
    plan = drive.plan
    chosen = order.index((plan.mode, plan.steps))
    if comfortable:  # recovered at least to there
        assert chosen <= order.index(comfortable[0])
    if fitting:  # and never beyond the deadline
        assert chosen >= order.index(fitting[0])
        assert plan.stride == 1
        assert drive.costs[-1] <= PERIOD
    else:
        assert (plan.mode, plan.steps) == order[-1]
        assert abs(drive.costs[-1] / PERIOD - plan.stride) <= NEAREST


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), middle=st.floats(10, 300))
def test_noise_does_not_make_the_plan_flap(seed: int, middle: float) -> None:
    random = np.random.default_rng(seed)
    drive = Drive()
    share = middle / 100
    ms = (40 * share, 20 * share, 10 * share)
    for _ in range(1500):
        slower = float(random.normal(1, 0.02)) * (3.0 if random.random() < 0.01 else 1.0)
        drive.frames(1, ms, slower)
    # Two outliers among ten frames lower it, rightly; about one pair in 250 frames.
    assert changes(drive.plans[200:]) <= 24


def test_one_slow_frame_changes_nothing_and_two_do() -> None:
    drive = Drive()
    cost = (20.0, 10.0, 5.0)
    drive.frames(SETTLED, cost)
    assert drive.plan == Plan("fuse", 4, 1)
    drive.frames(1, cost, slower=3)
    drive.frames(COSTS, cost)
    assert drive.plan == Plan("fuse", 4, 1)
    drive.frames(2, cost, slower=3)
    assert drive.plan != Plan("fuse", 4, 1)
    assert "takes 240 ms but has 100 ms" in drive.control.status().why
    drive.frames(SETTLED, cost)
    assert drive.plan == Plan("fuse", 4, 1)
    assert drive.control.status().why == "fuse with K = 4 takes 80 ms and has 100 ms"


@pytest.mark.parametrize("slower", [1.0, 2.3, 5.0, 9.9])
def test_skipped_images_are_spread_evenly(slower: float) -> None:
    drive = Drive(mode="fuse", steps=1)
    drive.frames(SETTLED, (30.0, 30.0, 30.0), slower)
    start = len(drive.begun)
    drive.frames(60, (30.0, 30.0, 30.0), slower)
    (gap,) = set(np.diff(drive.begun[start:]))
    assert gap == drive.plan.stride
    assert abs(0.09 * slower / PERIOD - gap) <= NEAREST


def test_auto_restores_while_fusing_is_too_slow_and_comes_back() -> None:
    ms = (20.0, 20.0, 30.0)
    drive = Drive()
    drive.frames(SETTLED, ms)
    assert drive.plan.mode == "fuse"
    drive.frames(SETTLED, ms, slower=2)
    assert drive.plan == Plan("restore", 1, 1)  # 80 ms; fusing would take 140
    drive.frames(500, ms, slower=2)
    assert changes(drive.plans[-500:]) == 0
    drive.frames(SETTLED, ms, slower=1.1)
    assert drive.plan == Plan("fuse", 1, 1)


def test_auto_skips_where_nobody_wants_the_restored_image() -> None:
    drive = Drive()
    drive.frames(SETTLED, (20.0, 20.0, 30.0), slower=2)
    drive.restore_wanted = False
    drive.frames(SETTLED, (20.0, 20.0, 30.0), slower=3)
    assert drive.plan == Plan("fuse", 1, 2)


def test_mode_fuse_never_restores() -> None:
    drive = Drive(mode="fuse")
    drive.frames(SETTLED, (20.0, 20.0, 30.0), slower=3)
    assert drive.plan == Plan("fuse", 1, 2)
    assert drive.control.status().why == (
        "fuse with K = 1 takes 210 ms, a period of the camera 100 ms"
    )


def test_fixed_steps_stay_whatever_they_cost() -> None:
    drive = Drive(mode="fuse", steps=4)
    drive.frames(SETTLED, (20.0, 40.0, 40.0))
    assert drive.plan == Plan("fuse", 4, 3)
    drive.control.configure("fuse", 1, 0.0)
    drive.frames(SETTLED, (2.0, 4.0, 4.0))
    assert drive.plan == Plan("fuse", 1, 1)
    with pytest.raises(MagicFuseError, match=r"steps is 3; expected 0 or one of \[1, 2, 4\]"):
        drive.control.configure("fuse", 3, 0.0)
    assert drive.plan == Plan("fuse", 1, 1)


def test_a_longer_target_period_skips_images_and_affords_more_steps() -> None:
    ms = (10.0, 20.0, 10.0)  # 130 ms for K = 4
    drive = Drive()
    drive.frames(SETTLED, ms)
    assert drive.plan == Plan("fuse", 2, 1)
    drive.control.configure("auto", 0, 0.3)
    drive.frames(SETTLED, ms)
    assert drive.plan == Plan("fuse", 4, 3)
    assert drive.control.status().deadline_s == 0.3


def test_a_shorter_target_period_costs_steps_but_no_images() -> None:
    drive = Drive(mode="fuse", target=0.03)
    drive.frames(SETTLED, (20.0, 15.0, 5.0))
    assert drive.plan == Plan("fuse", 1, 1)  # 40 ms: over the target, in time for the camera


def test_a_wrong_cost_model_is_tried_ever_more_seldom() -> None:
    # An asynchronous backend: all the time shows up in the decoder, none in the steps.
    drive = Drive(mode="fuse")
    count = 4000
    for _ in range(count):
        drive.now += PERIOD
        if drive.control.due(drive.now) <= drive.now:
            plan = drive.control.plan(True)
            drive.plans.append(plan)
            drive.control.done(plan, 0.03 + 0.04 * plan.steps, {})
    assert drive.plans[-1].stride == 1
    late = [plan for plan in drive.plans[count // 2 :] if plan.steps > 1]
    assert len(late) < 0.01 * count


def test_images_are_begun_until_there_is_something_to_judge_by() -> None:
    control = DeadlineControl(GRIDS, default_steps=max(GRIDS))
    assert all(control.due(now) == now for now in (0.0, 0.001, 0.002))
    status = control.status()
    assert (status.plan, status.why) == (Plan("fuse", 4, 1), "start")
    assert status.period_s is None and status.deadline_s is None


def test_after_a_pause_the_first_image_is_begun() -> None:
    drive = Drive(mode="fuse", steps=1)
    drive.frames(SETTLED, (380.0, 10.0, 10.0))
    assert drive.plan.stride == 4
    while not drive.image((380.0, 10.0, 10.0)):
        pass
    drive.now += PERIOD
    assert drive.control.due(drive.now) == pytest.approx(drive.now + 3.5 * PERIOD)
    drive.now += 20 * PERIOD
    assert drive.image((380.0, 10.0, 10.0))


def test_after_a_burst_the_stride_is_the_old_one_at_once() -> None:
    ms = (20.0, 10.0, 10.0)
    drive = Drive(mode="fuse", steps=1)
    drive.frames(SETTLED, ms)
    drive.period = 0.005
    for _ in range(60):
        drive.image(ms)
    assert drive.plan.stride == 8
    drive.period = PERIOD
    for _ in range(6):
        drive.image(ms)
    assert drive.plan.stride == 1
    assert drive.control.status().period_s == pytest.approx(PERIOD)


@settings(deadline=None, max_examples=40)
@given(share=st.floats(1.02, 6.0), noise=st.floats(0.0, 0.15), seed=st.integers(0, 999))
def test_too_fast_a_camera(share: float, noise: float, seed: int) -> None:
    """The newest image is fused, soon, and not many fewer than the machine could do."""
    random = np.random.default_rng(seed)
    control = DeadlineControl([1], default_steps=1)
    free_at, ages, costs, frames = 0.0, [], [], 600
    waiting: tuple[float, float] | None = None  # arrival and due time, as in the mailbox
    for number in range(frames):
        now = number * PERIOD
        while waiting is not None and (begin := max(free_at, waiting[1])) <= now:
            costs.append(share * PERIOD * float(random.normal(1, noise)))
            free_at = begin + costs[-1]
            ages.append(free_at - waiting[0])
            assert begin - waiting[0] <= PERIOD + 1e-9
            waiting = None
            control.done(control.plan(False), costs[-1], {})
        due = control.due(now)
        waiting = (now, due if waiting is None else min(due, waiting[1]))
    settled = len(ages) // 4
    assert np.percentile(ages[settled:], 95) < 2 * np.median(costs) * (1 + noise)
    assert len(ages) > 0.68 * frames / share


Arrivals = Callable[[int], float]


@pytest.mark.parametrize(
    "arrival",
    [
        lambda i: i / 30,
        lambda i: (i + 0.3 * np.sin(7 * i)) / 30,  # jitter
        lambda i: (i - i % 2) / 30,  # delivered in pairs
        lambda i: i / 30 + (10.0 if i > 40 else 0.0),  # away for ten seconds
        lambda i: max(i / 30, 1.8 if i > 40 else 0.0),  # held up for half a second, then all
    ],
)
def test_the_period_is_that_of_the_camera(arrival: Arrivals) -> None:
    period = CameraPeriod()
    for i in range(60):  # the latest half of a window is after the pause
        period.arrived(arrival(i))
    assert period.seconds == pytest.approx(1 / 30, rel=0.04)


def test_the_period_follows_the_camera() -> None:
    period, now = CameraPeriod(), 0.0
    for seconds in (1 / 30, 1 / 200, 3.0, 0.1):
        for _ in range(40):
            now += seconds
            period.arrived(now)
        assert period.seconds == pytest.approx(seconds, rel=0.01), seconds


def test_no_more_steps_than_the_bundles_default_unless_they_are_asked_for() -> None:
    for steps, expected in ((0, 2), (4, 4)):
        drive = Drive(mode="fuse")
        drive.control = DeadlineControl(GRIDS, default_steps=2)
        drive.control.configure("fuse", steps, 0.0)
        drive.frames(2 * SETTLED, (1.0, 1.0, 1.0))
        assert drive.plan.steps == expected


def test_a_camera_beside_others_plans_by_its_share_of_the_time() -> None:
    drive = Drive(mode="fuse")
    ms = (10.0, 5.0, 5.0)  # 50 ms with K = 4, 30 with 2, 20 with 1
    drive.share = Share(0.4, others=3)
    drive.frames(SETTLED, ms)
    assert drive.plan == Plan("fuse", 2, stride=1)
    why = "fuse with K = 4 takes 50 ms but has 40 ms, 40% of its deadline"
    assert drive.control.status().why == f"{why}; may use 40 % of the time, beside 3 other cameras"
    drive.share = Share(0.1, others=3)
    drive.frames(SETTLED, ms)
    assert drive.plan == Plan("fuse", 1, stride=2)  # a turn comes every other period
    drive.share = Share()
    drive.frames(SETTLED, ms)
    assert drive.plan == Plan("fuse", 4, stride=1)
    assert "other cameras" not in drive.control.status().why


@pytest.mark.parametrize("slower", [1.0, 1.4, 2.0, 4.0])
def test_cameras_that_leave_each_other_more_or_less_settle(slower: float) -> None:
    """Two cameras of which one can have K = 4, or both K = 2, or both do not fit."""
    drives = [Drive(mode="fuse"), Drive(mode="fuse", period=0.107)]
    uses = [0.0, 0.0]
    for _ in range(4 * MOST_PATIENCE):
        for i, drive in enumerate(drives):
            drive.share = Share(max(0.5, 1 - uses[1 - i]), others=1)
            if drive.image((10.0, 5.0, 7.5), slower):  # 60 ms, 35, 22.5
                uses[i] += 0.05 * (drive.costs[-1] / drive.period - uses[i])
    for drive in drives:
        assert changes(drive.plans) <= 30
        assert changes(drive.plans[-MOST_PATIENCE:]) == 0
