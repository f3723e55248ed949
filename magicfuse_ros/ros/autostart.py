"""Bringing a lifecycle node to active without a manager."""

from __future__ import annotations

from typing import Any

from rclpy.clock import Clock, ClockType

from magicfuse_ros.ros.managed_node import ManagedNode
from magicfuse_ros.ros.process import Stopping, spin

RETRY_S = 5.0


def serve(node: ManagedNode[Any], stop: Stopping) -> None:
    """Bring the node to active if `autostart` says so, and serve it until it is to stop."""
    if node.get_parameter("autostart").value:
        Autostart(node).attempt()
    spin(node, stop)


class Autostart:
    """Configures and activates a node, again and again until both have succeeded once.

    What is missing may come: a bundle that is still being copied, a driver that is still loading.
    A reason is logged once; the diagnostics have it all the time. A transition that somebody else
    makes ends the attempts: the node is in other hands then.
    """

    def __init__(self, node: ManagedNode[Any]) -> None:
        self._node = node
        self._state = node.state
        # Steady: with use_sim_time, ROS time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        again = node.guard.wrapped("autostart", self.attempt)
        self._timer = node.create_timer(RETRY_S, again, clock=steady)

    def attempt(self) -> None:
        """Make the transitions that are missing; those that fail are made again later."""
        node = self._node
        if node.state != self._state:
            node.retrying = False
            node.destroy_timer(self._timer)
            return
        if node.state == "unconfigured":
            node.trigger_configure()
        if node.state == "inactive":
            node.trigger_activate()
        self._state = node.state
        node.retrying = self._state != "active"
        if not node.retrying:
            node.destroy_timer(self._timer)
