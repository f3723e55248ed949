"""Checks that the clock of a node with use_sim_time advances."""

from __future__ import annotations

from rclpy.clock import ROSClock
from rclpy.time_source import CLOCK_TOPIC

_STANDS_S = 3.0


class ClockCheck:
    """Checks a node's clock from time to time. One thread uses it."""

    def __init__(self, clock: ROSClock) -> None:
        self._clock = clock
        self._time_ns = 0
        self._since: float | None = None  # steady time since when the clock shows that time

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
            return f"use_sim_time is true, and no {CLOCK_TOPIC} comes"
        return f"use_sim_time is true, and {CLOCK_TOPIC} stands still"
