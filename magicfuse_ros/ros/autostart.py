# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Configures and activates a lifecycle node without a manager."""

from __future__ import annotations

from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.timer import Timer

from magicfuse_ros.ros.managed_node import ManagedNode
from magicfuse_ros.ros.process import Stopping, spin

RETRY_S, LONGEST_RETRY_S = 5.0, 60.0  # pause before the second attempt; doubled up to the last


def serve(node: ManagedNode[Any], stop: Stopping) -> None:
    """Activate the node if `autostart` is set, and serve it until `stop` is true."""
    if node.get_parameter("autostart").value:
        Autostart(node).attempt()
    else:
        node.get_logger().info("unconfigured: configure and activate it, or set autostart")
    spin(node, stop)


class Autostart:
    """Configures and activates a node, and retries until both have succeeded once.

    What is missing may appear later: a bundle that is still being copied, a driver that is still
    loading. A reason is logged once but always shown in the diagnostics. A transition that somebody
    else makes ends the attempts, because somebody else then controls the node.
    """

    def __init__(self, node: ManagedNode[Any]) -> None:
        self._node = node
        self._state = node.state
        self._pause_s = RETRY_S
        self._timer: Timer | None = None

    def attempt(self) -> None:
        """Make the missing transitions; a failed one is retried later."""
        node = self._node
        if self._timer is not None:
            node.destroy_timer(self._timer)
        if node.state != self._state:
            return
        node.retrying = self._timer is not None
        if node.state == "unconfigured":
            node.trigger_configure()
        if node.state == "inactive":
            node.trigger_activate()
        node.retrying = False  # somebody who asks between two attempts sees the reason
        self._state = node.state
        if self._state != "active":
            # Steady: with use_sim_time, ROS time may stand still.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            again = node.guard.wrapped("autostart", self.attempt)
            self._timer = node.create_timer(self._pause_s, again, clock=steady)
            self._pause_s = min(2 * self._pause_s, LONGEST_RETRY_S)
