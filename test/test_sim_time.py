from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from magicfuse_ros.ros.sim_time import ClockCheck


def test_a_clock_that_does_not_go_is_named() -> None:
    now = SimpleNamespace(nanoseconds=0)
    clock: Any = SimpleNamespace(ros_time_is_active=False, now=lambda: now)
    check = ClockCheck(clock)
    assert [check.complaint(second) for second in (0, 10)] == ["", ""], "no use_sim_time"
    clock.ros_time_is_active = True
    assert [check.complaint(second) for second in (20, 22)] == ["", ""], "it may come soon"
    assert check.complaint(23) == "use_sim_time is true, and no /clock comes"
    now.nanoseconds = 7
    assert check.complaint(24) == ""
    assert check.complaint(28) == "use_sim_time is true, and /clock stands still"
