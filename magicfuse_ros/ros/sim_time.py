# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks that the clock of a node with use_sim_time advances."""

from __future__ import annotations

from rclpy.clock import ROSClock

_STANDS_S = 3.0


class ClockCheck:
    """Checks a node's clock from time to time. One thread uses it."""

    def __init__(self, clock: ROSClock, topic: str) -> None:
        self._clock, self._topic = clock, topic
        self._time_ns = 0
        self._since: float | None = None  # steady time since which the clock shows `_time_ns`

    def complaint(self, now: float) -> str:
        """Return why the clock stands still; empty if it advances or needs no /clock.

        Args:
            now: time in seconds of a steady clock.
        """
        if not self._clock.ros_time_is_active:
            self._since = None
            return ""
        time_ns = self._clock.now().nanoseconds
        if self._since is None or time_ns != self._time_ns:
            self._time_ns, self._since = time_ns, now
        if now - self._since < _STANDS_S:
            return ""
        if time_ns == 0:
            return f"use_sim_time is true, but nothing arrives on {self._topic}"
        return f"use_sim_time is true, but {self._topic} stands still"
