"""A mailbox of one slot: whoever reads it gets the newest item, older ones are gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One slot between one writer thread and one reader thread.

    Attributes:
        closed: whether it is.
    """

    def __init__(self) -> None:
        self._item: T | None = None
        self._due = 0.0
        self.closed = False
        self._changed = threading.Condition()

    def put(self, item: T, due: float) -> float | None:
        """Leave an item that is to be read at the time `due` (`time.monotonic`), or later.

        It takes the place of an unread one, and its due time where that is earlier.

        Returns:
            When the unread one was due that was thrown away; None if there was none.
        """
        with self._changed:
            replaced = None if self._item is None else self._due
            self._item = item
            self._due = due if replaced is None else min(due, replaced)
            self._changed.notify()
        return replaced

    def get(self, wait: Callable[[float], object] = lambda due: None) -> T | None:
        """Wait for an item that is due and take it; None once the mailbox is closed.

        Args:
            wait: called with the time at which the item was due; waits for whatever else it takes.
                The item taken is the newest when it returns.
        """
        due = self._wait()
        if due is not None:
            wait(due)
        with self._changed:
            item, self._item = self._item, None
            return None if self.closed else item

    def _wait(self) -> float | None:
        with self._changed:
            while not self.closed:
                left = None if self._item is None else self._due - monotonic()
                if left is not None and left <= 0:
                    return self._due
                self._changed.wait(left)
            return None

    def close(self) -> None:
        """Wake the reader and let every further `get` return None."""
        with self._changed:
            self.closed = True
            self._changed.notify()
