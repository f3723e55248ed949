# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A mailbox with one slot: the reader gets the newest item; older ones are dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One slot between a writer thread and a reader thread.

    Attributes:
        closed: whether the mailbox is closed.
    """

    def __init__(self) -> None:
        self._item: T | None = None
        self._due = 0.0
        self.closed = False
        self._changed = threading.Condition()

    def put(self, item: T, due: float) -> float | None:
        """Leave an item to be read at the time `due` (`time.monotonic`) or later.

        It replaces an unread one, and takes over its due time if that is earlier.

        Returns:
            When the dropped unread item was due; None if there was none.
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
            wait: called with the time at which the item was due; waits for whatever else is needed.
                `get` takes the item that is the newest when `wait` returns.
        """
        due = self._wait()
        if due is not None:
            wait(due)
        with self._changed:
            if self.closed:
                return None
            item, self._item = self._item, None
            return item

    def _wait(self) -> float | None:
        with self._changed:
            while not self.closed:
                left = None if self._item is None else self._due - monotonic()
                if left is not None and left <= 0:
                    return self._due
                self._changed.wait(left)
            return None

    def close(self) -> bool:
        """Wake the reader and let every further `get` return None; return whether one is unread."""
        with self._changed:
            self.closed = True
            self._changed.notify()
            return self._item is not None
