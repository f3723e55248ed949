"""Running a node as a process that always ends cleanly."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from magicfuse_ros.errors import MagicFuseError

_WAKE_S = 0.2  # Python runs signal handlers between two waits of the executor

N = TypeVar("N", bound=Node)


class Stop:
    """True once SIGINT or SIGTERM has come; any number of signals does no more than that."""

    def __init__(self) -> None:
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._came = True

    def ignore(self) -> None:
        """Ignore both signals from now on, also while the interpreter ends.

        For handlers in Python, it goes back to the default then, which kills.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def __bool__(self) -> bool:
        return self._came


def spin(node: Node, stop: Stop) -> None:
    """Serve a node until a signal comes."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop:
        executor.spin_once(timeout_sec=_WAKE_S)
    executor.shutdown()


def run(make_node: Callable[[], N], work: Callable[[N, Stop], None]) -> int:
    """Make a node and do its work.

    Args:
        make_node: called once ROS is up.
        work: returns soon after its `Stop` has become true.

    Returns:
        The exit code: 0, or 1 where the node cannot start or work for a reason that the user can
        change, which is printed.
    """
    stop = Stop()
    # rclpy's own handlers would raise KeyboardInterrupt anywhere, also in the middle of the end.
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make_node()
        try:
            work(node, stop)
        finally:
            node.destroy_node()
    except (ParameterException, MagicFuseError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        stop.ignore()
        rclpy.try_shutdown()
    return 0
