# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Delays Ctrl-C until the finished work can be kept, or lets it end the process at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


def end_without_traceback() -> Any:
    """Let Ctrl-C end this process at once, as SIGTERM does; return the handler that it had.

    If Ctrl-C is ignored, as in a background job, or handled, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return before


class Interrupt:
    """Notes Ctrl-C inside a `with` block, and holds it back until the block checks for it.

    A second Ctrl-C always raises KeyboardInterrupt. If Ctrl-C is ignored, as in a background job,
    or if the thread gets no signals, nothing changes.

    Attributes:
        asked: whether Ctrl-C came.
    """

    def __init__(self, hold: bool = True, sigterm: bool = False) -> None:
        """Choose what is held back.

        Args:
            hold: hold back the first Ctrl-C; otherwise it raises KeyboardInterrupt as usual.
            sigterm: treat SIGTERM, and SIGHUP of a terminal that is gone, as Ctrl-C.
        """
        self.asked = False
        self._hold = hold
        self._sigterm = sigterm
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        """Install the signal handlers."""
        if threading.current_thread() is not threading.main_thread():
            return self
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._old[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        for number in (signal.SIGTERM, signal.SIGHUP) if self._sigterm else ():
            if signal.getsignal(number) is signal.SIG_DFL:
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the old signal handlers."""
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self._hold:
            raise KeyboardInterrupt
