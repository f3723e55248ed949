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

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from magicfuse_ros.ros.sim_time import ClockCheck


def test_a_clock_that_does_not_go_is_named() -> None:
    now = SimpleNamespace(nanoseconds=0)
    clock: Any = SimpleNamespace(ros_time_is_active=False, now=lambda: now)
    check = ClockCheck(clock, "/clock")
    assert [check.complaint(second) for second in (0, 10)] == ["", ""], "no use_sim_time"
    clock.ros_time_is_active = True
    assert [check.complaint(second) for second in (20, 22)] == ["", ""], "it may come soon"
    assert check.complaint(23) == "use_sim_time is true, but nothing arrives on /clock"
    now.nanoseconds = 7
    assert check.complaint(24) == ""
    assert check.complaint(28) == "use_sim_time is true, but /clock stands still"
