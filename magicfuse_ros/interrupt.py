"""Ctrl-C at a moment when what is done can be kept."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Notes Ctrl-C inside of a `with` block, and can hold it back until the block looks.

    A second Ctrl-C raises KeyboardInterrupt in any case. Where Ctrl-C is ignored, as in a
    background job, or in a thread that gets no signals, nothing changes.

    Attributes:
        asked: whether Ctrl-C came.
    """

    def __init__(self, hold: bool) -> None:
        """Take whether the first Ctrl-C is held back, or raises KeyboardInterrupt as usual."""
        self.asked = False
        self._hold = hold
        self._old: Any = None

    def __enter__(self) -> Interrupt:
        """Take the signal's place."""
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
        """Give it back."""
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self._hold:
            raise KeyboardInterrupt
