# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Delays Ctrl-C until the finished work can be kept."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Notes Ctrl-C inside a `with` block, and can hold it back until the block checks for it.

    A second Ctrl-C always raises KeyboardInterrupt. If Ctrl-C is ignored, as in a background job,
    or if the thread gets no signals, nothing changes.

    Attributes:
        asked: whether Ctrl-C came.
    """

    def __init__(self, hold: bool) -> None:
        """Hold back the first Ctrl-C, or let it raise KeyboardInterrupt as usual."""
        self.asked = False
        self._hold = hold
        self._old: Any = None

    def __enter__(self) -> Interrupt:
        """Install the signal handler."""
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._old = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the old signal handler."""
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self._hold:
            raise KeyboardInterrupt
