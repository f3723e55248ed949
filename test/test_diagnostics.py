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

pytest.importorskip("rclpy")
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from magicfuse_ros.deadline import Plan, Status
from magicfuse_ros.ros.diagnostics import Diagnosis, Losses, diagnostics, refusal_values
from magicfuse_ros.ros.fuse_diagnostics import Activity, FuseDiagnostics
from magicfuse_ros.ros.statistics import Statistics

PROBLEMS = Diagnosis(problems=["no mask arrives", "2 masks refused"], summary="10 a second")


@pytest.mark.parametrize(
    ("state", "diagnosis", "level", "text"),
    [
        ("active", Diagnosis(summary="10 a second"), "OK", "active: 10 a second"),
        ("active", Diagnosis(), "OK", "active"),
        ("active", PROBLEMS, "WARN", "active: no mask arrives; 2 masks refused"),
        ("inactive", PROBLEMS, "OK", "inactive"),
        ("active", Diagnosis(stuck="none", problems=["late"]), "ERROR", "active: none; late"),
        ("inactive", Diagnosis(failure="no bundle"), "ERROR", "inactive: no bundle"),
    ],
)
def test_the_worst_finding_decides_the_level(
    state: str, diagnosis: Diagnosis, level: str, text: str
) -> None:
    (status,) = diagnostics("/front/node", "fusion", state, diagnosis, Time(sec=7)).status
    assert (status.level, status.message) == (getattr(DiagnosticStatus, level), text)
    assert (status.name, status.hardware_id) == ("front/node: fusion", "/front/node")
    values = {entry.key: entry.value for entry in status.values}
    assert values == {"state": state, "failure": diagnosis.failure}


def test_losses_are_reported_once() -> None:
    losses = Losses()
    assert losses.problems(3, "images") == ["3 images refused or lost"]
    assert losses.problems(3, "images") == []
    assert losses.problems(0, "images") == []  # the counts restart with the node's activation
    assert losses.problems(1, "images") == ["1 images refused or lost"]


def test_refusals_have_a_total_and_a_count_for_each_cause() -> None:
    values = refusal_values({"mask is #x#": 2, "other": 1}, "mask is 1x1")
    assert values["refused"] == "3" and values["refused: mask is #x#"] == "2"
    assert values["last_refusal"] == "mask is 1x1"


def problems(
    now: float, period_s: float, delay_s: float, age_s: float = 1.5, simulated: bool = False
) -> list[str]:
    """Return what is wrong at `now`: one image arrived at 0."""
    statistics = Statistics(0.0)
    statistics.received(0.0)
    statistics.fused(delay_s, delay_s, age_s, steps=1, stages_ms={"total": 10.0})
    status = Status(Plan("fuse", 1, 1), "", period_s, deadline_s=period_s)
    activity = Activity(statistics.snapshot(now), status, None, [])
    found = FuseDiagnostics().diagnosis("", {"image_topic": "/cam"}, [], activity, simulated)
    return list(found.problems)


def test_results_are_late_by_the_nodes_own_delay() -> None:
    assert problems(0.3, 0.1, 0.05) == []
    assert problems(0.3, 0.1, 0.12) == ["delay p95 120 ms is over the deadline of 100 ms"]


def test_stamps_that_tf_cannot_use_are_a_problem() -> None:
    hours = "of another clock, more than an hour from"
    for age_s, where in (
        (-0.5, "0.5 s ahead of"), (37.0, "37.0 s behind"), (3660.0, hours), (-9e8, hours)
    ):  # fmt: skip
        (problem,) = problems(0.3, 0.1, 0.05, age_s)
        assert problem.startswith(f"stamps are {where} this node's clock: TF and Nav2 cannot")
        assert problems(0.3, 0.1, 0.05, age_s, simulated=True) == []
    assert problems(0.3, 0.1, 0.05, -0.05) == []


def test_a_slow_camera_is_silent_after_three_of_its_periods() -> None:
    assert problems(2.1, 0.1, 0.05) == problems(16.0, 5.0, 0.05) == ["no image on /cam"]
    assert problems(1.9, 0.1, 0.05) == problems(14.0, 5.0, 0.05) == []


@pytest.mark.parametrize(("period_s", "stuck"), [(10.0, False), (0.5, True)])
def test_one_refused_image_of_a_slow_camera_is_no_error(period_s: float, stuck: bool) -> None:
    statistics = Statistics(0.0)
    for arrival in np.arange(0.0, 8.0, period_s):
        statistics.received(float(arrival))
        statistics.refused("100 bytes are damaged")
    status = Status(Plan("fuse", 1, 1), "", period_s, deadline_s=period_s)
    activity = Activity(statistics.snapshot(8.0), status, None, [])
    found = FuseDiagnostics().diagnosis("", {"image_topic": "/cam"}, [], activity)
    assert bool(found.stuck) == stuck


@pytest.mark.parametrize(("deadline_s", "stuck"), [(5.0, False), (3.0, True)])
def test_results_that_are_wanted_seldom_are_no_error(deadline_s: float, stuck: bool) -> None:
    statistics = Statistics(0.0)
    for arrival in np.arange(0.0, 9.0, 0.1):
        statistics.received(float(arrival))
    status = Status(Plan("fuse", 1, 1), "", 0.1, deadline_s=deadline_s)
    activity = Activity(statistics.snapshot(9.0), status, None, [])
    found = FuseDiagnostics().diagnosis("", {"image_topic": "/cam"}, [], activity)
    assert bool(found.stuck) == stuck
