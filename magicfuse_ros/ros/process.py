# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Runs a node as a process that always ends cleanly."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from time import monotonic, sleep
from typing import Protocol, TypeVar

import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from magicfuse_ros.errors import DeviceLostError, MagicFuseError
from magicfuse_ros.ros.exit_timer import exit_after
from magicfuse_ros.ros.guard import Guard

# Exit codes. The launch files give up on the first and restart the node on the others.
REFUSED = 1
DEFECT = os.EX_SOFTWARE
DEVICE_LOST = os.EX_UNAVAILABLE

END_S = 7.0  # time for a process to end; launch kills it after 10 s
_FAILURE_S = 10.0  # how long the diagnostics show a failure of rclpy
_PAUSE_S = 0.02  # after a failure of rclpy
_WAKE_S = 0.2  # Python runs signal handlers between two waits
# Parts of the errors of an rclpy that cannot open its log file.
_NO_LOG = ("initialize logging", "logging directory", "log directory", "Failed opening file")


class Endable(Protocol):
    """A node, or several."""

    def destroy_node(self) -> None:
        """End all its work."""


N = TypeVar("N", bound=Endable)


class Stop:
    """True once SIGINT or SIGTERM has arrived; further signals have no effect."""

    def __init__(self) -> None:
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._came = True

    def ignore(self) -> None:
        """Ignore both signals from now on, even while the interpreter ends.

        As it ends, the interpreter replaces Python handlers with the default action, which kills.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def __bool__(self) -> bool:
        return self._came


class Guarded(Protocol):
    """A node that survives its callbacks."""

    guard: Guard


class Stopping(Protocol):
    """A `Stop`, or another reason to end."""

    def __bool__(self) -> bool:
        """Return whether to end."""


def spin(node: Guarded, stop: Stopping) -> None:
    """Serve a node until `stop` is true, whatever its callbacks raise.

    Raises:
        DeviceLostError: if the node cannot work any more in this process.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    failed_s = -math.inf
    while not stop and rclpy.ok():
        try:
            executor.spin_once(timeout_sec=_WAKE_S)
        except BaseException as error:  # from rclpy's services; the node's callbacks are guarded
            node.guard.failed("serving ROS", error)
            failed_s = monotonic()
            sleep(_PAUSE_S)  # it may fail again at once, for ever
        if monotonic() - failed_s > _FAILURE_S:
            node.guard.works("serving ROS")
        if node.guard.lost:
            break
    executor.shutdown()
    if node.guard.lost:
        raise node.guard.lost


def run(make_node: Callable[[], N], work: Callable[[N, Stop], None]) -> int:
    """Make a node and do its work; ending it takes at most `END_S`, then the process exits.

    Args:
        make_node: called once ROS is up.
        work: returns soon after its `Stop` becomes true; it runs in a thread.

    Returns:
        The exit code: 0; `REFUSED` if the node cannot start or work for a reason that the user
        can change, which is printed; `DEVICE_LOST` if the GPU failed for good; `DEFECT` after
        an error that nobody expected.
    """
    stop = Stop()
    nodes: list[N] = []

    def make_and_work() -> None:
        _init()
        nodes.append(make_node())
        _attended(partial(work, nodes[0], stop), stop)

    def end() -> None:
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()

    code = _exit_code(make_and_work)
    stop.ignore()
    # Fast DDS can hang for ever while a node is destroyed, and the interpreter hangs with it.
    exit_after(END_S, code)
    ended = _exit_code(end)
    return code or ended


def _attended(work: Callable[[], None], stop: Stop) -> None:
    """Do the work in a thread, and let it take at most `END_S` once a signal has come.

    Python handles signals in the main thread only, and not while a library keeps that thread busy:
    compiling networks may take minutes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="work") as pool:
        done = pool.submit(work)
        while not stop and not done.done():
            wait([done], _WAKE_S)
        if stop:
            exit_after(END_S, 0)
        done.result()


def _init() -> None:
    """Initialise ROS; without its log file if that cannot be written, as on a full disk.

    Raises:
        MagicFuseError: if a remapping, a parameter or a parameter file cannot be read.
    """
    try:
        _init_rclpy(sys.argv)
    except RuntimeError as error:
        reason = re.sub(r"[, ]*\bat [^ ]+:\d+", "", str(error))  # the place in the source of ROS
        if any(words in reason for words in _NO_LOG):
            line = f"warning: no log file: {reason}; set HOME or ROS_LOG_DIR to a writable folder"
            print(" ".join(line.split()), file=sys.stderr)
            rclpy.shutdown()
            _init_rclpy([*sys.argv, "--ros-args", "--disable-external-lib-logs"])
            return
        if "remap rule" in reason:
            reason += (
                "; in a name, ROS 2 allows letters, digits, '_' and '/' between words, none of "
                "which begins with a digit"
            )
        if type(error).__name__ == "UnknownROSArgsError":  # of a private module
            reason = f"unknown ROS arguments: {reason}"
        raise MagicFuseError(reason) from error


def _init_rclpy(arguments: list[str]) -> None:
    # rclpy's own handlers would raise KeyboardInterrupt anywhere, even during shutdown.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)


def _exit_code(work: Callable[[], None]) -> int:
    try:
        work()
    except (NameValidationException, ParameterException, MagicFuseError) as error:
        # Humble gives some errors two arguments. A caret marks a place in the line above.
        line = ": ".join(map(str, error.args)).removesuffix("^")
        if "'INTEGER', expecting type 'DOUBLE'" in line:
            line += "; write a number with a point, such as 1.0"
        print("error:", " ".join(line.split()), file=sys.stderr)
        return DEVICE_LOST if isinstance(error, DeviceLostError) else REFUSED
    except BaseException:  # a library may raise SystemExit or a panic of its own
        traceback.print_exc()
        return DEFECT
    return 0
