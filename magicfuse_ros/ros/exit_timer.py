# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A timer that ends the process even if a library hangs and no Python code runs."""

from __future__ import annotations

import ctypes
from time import CLOCK_MONOTONIC

_SIGEV_THREAD = 2


class _Event(ctypes.Structure):
    """The sigevent of Linux: the function that the timer runs in a thread, and its argument."""

    _fields_ = (
        ("value", ctypes.c_long),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 40),
    )


class _Times(ctypes.Structure):
    """The itimerspec of Linux: the interval and the first time, each in s and ns."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


def exit_after(seconds: float, code: int) -> None:
    """End this process with an exit code after some seconds if it still runs.

    The C library ends it. A Python thread could not, because a hanging DDS call may hold the
    interpreter's lock. There is no cleanup.

    Args:
        seconds: from now, more than 0.
        code: the exit code, 0 to 255.
    """
    libc = ctypes.CDLL(None)
    end = ctypes.cast(libc._exit, ctypes.c_void_p)
    event = _Event(value=code, notify=_SIGEV_THREAD, function=end)
    times = _Times(first_s=int(seconds), first_ns=int(seconds % 1 * 1e9))
    timer = ctypes.c_void_p()
    # If the system has no timer left, only this safety net is lost; the process still exits.
    if libc.timer_create(CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
        libc.timer_settime(timer, 0, ctypes.byref(times), None)
