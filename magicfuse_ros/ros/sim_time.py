"""Does the clock of a node with use_sim_time go?"""

from __future__ import annotations

from rclpy.clock import ROSClock
from rclpy.time_source import CLOCK_TOPIC

_STANDS_S = 3.0


class ClockCheck:
    """Looks at a node's clock now and then. One thread uses it."""

    def __init__(self, clock: ROSClock) -> None:
        self._clock = clock
        self._time_ns = 0
        self._since: float | None = None  # that time is the clock's, by a steady clock

    def complaint(self, now: float) -> str:
        """Return in words why the clock stands still; empty where it goes, or needs no /clock.

        Args:
            now: seconds of a steady clock.
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
