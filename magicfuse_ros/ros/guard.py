# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Guards every callback: an exception becomes a failure of the node and does not end it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger

from magicfuse_ros.errors import DeviceLostError, MagicFuseError
from magicfuse_ros.printable import printable
from magicfuse_ros.ros.causes import MAX_TOLD, cause, one_line


def describe(error: BaseException) -> str:
    """Return the text of an error; if it is a bug, with its type, file and line."""
    if isinstance(error, MagicFuseError):
        return one_line(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return one_line(f"{type(error).__name__}: {error}") + place


class Guard:
    """Runs callbacks and keeps the failure of each one until it works again.

    Attributes:
        lost: an error that only a new process can fix, or None.
    """

    def __init__(self, get_logger: Callable[[], RcutilsLogger]) -> None:
        self._get_logger = get_logger
        self._failures: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()
        self.lost: DeviceLostError | None = None

    @property
    def failure(self) -> str:
        """What is wrong now; empty if nothing is."""
        return "; ".join(self._failures.values())

    def failed(self, what: str, error: BaseException) -> str:
        """Keep an error as the failure of `what`, log it once, and return its text."""
        text = describe(error)
        if isinstance(error, DeviceLostError):
            self.lost = error
        self._failures[what] = f"{what} failed: {text}"
        told = what, cause(text)
        # A camera's callback may fail 30 times a second.
        if told not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(told)
            logger = self._get_logger()
            logger.error(f"{what} failed: {text}")
            if not isinstance(error, MagicFuseError):
                logger.error(printable("".join(traceback.format_exception(error))))
        return text

    def run(self, what: str, work: Callable[..., object], *arguments: object) -> bool:
        """Call `work`; return whether it succeeded.

        It catches BaseException, because a library may raise SystemExit or its own panic; a signal
        raises nothing here (see `process.Stop`).
        """
        try:
            work(*arguments)
        except BaseException as error:
            self.failed(what, error)
            return False
        self.works(what)
        return True

    def works(self, what: str) -> None:
        """Forget the failure of `what`, if there is one."""
        self._failures.pop(what, None)

    def wrapped(self, what: str, callback: Callable[..., object]) -> Callable[..., Any]:
        """Return a callback of the same signature that never raises."""

        @wraps(callback)
        def guarded(*arguments: object) -> None:
            self.run(what, callback, *arguments)

        return guarded

    def tell_again(self, what: str) -> None:
        """Log the next failure of `what`, even if it was logged before."""
        self._told = {told for told in list(self._told) if told[0] != what}

    def reset(self) -> None:
        """Forget all failures: a successful transition starts over."""
        self._failures.clear()
        self._told.clear()
