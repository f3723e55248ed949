# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Counts refusals by cause: by the kind of fault, ignoring the numbers in its text."""

from __future__ import annotations

import re

from magicfuse_ros.printable import printable

MAX_CAUSES = 8
MAX_TOLD = 50
_MAX_QUOTED = 120
_MAX_TEXT = 300
MAX_REPORTED = 2000  # of a whole report
_END = 5000  # characters inspected at either end: a message's text may be megabytes long
# A quote after a letter is an apostrophe.
_QUOTED = re.compile(rf"""((?<!\w)['"]|\[)([^'"\[\]]{{{_MAX_QUOTED}}})[^'"\[\]]+""")
# A number that is not part of a name: 640x480, -1.5e-3 and 0x7f3a, but not rgb8, cam_2 or 8UC1.
_NUMBER = re.compile(
    r"0x[0-9a-f]+|(?<![\w.])[-+]?\d[\d.]*(?:e[-+]?\d+)?(?:x\d+)*(?![^\W\d]|\.?\d)", re.IGNORECASE
)


def one_line(text: str, most: int = _MAX_TEXT) -> str:
    """Return a text in one line, with its quoted parts cut, because they come from messages."""
    if len(text) > 2 * _END:
        text = text[:_END] + text[-_END:]
    text = _QUOTED.sub(r"\1\2…", printable(" ".join(text.split())))
    return text if len(text) <= most else text[: most - 1] + "…"


def cause(text: str) -> str:
    """Return the kind of a refusal: its text, shortened, with `#` instead of numbers."""
    return _NUMBER.sub("#", one_line(text))


class Causes:
    """Counts refusals by cause; old causes share one count. Not thread-safe.

    Attributes:
        counts: by cause, for at most `MAX_CAUSES` causes and `other`. When a new cause needs room,
            the cause not seen for the longest time moves into `other`.
        latest: the text of the latest refusal, with its numbers; empty before the first.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.latest = ""
        self._other = 0
        self._told: set[str] = set()

    @property
    def total(self) -> int:
        """The number of all refusals."""
        return sum(self.counts.values())

    def add(self, text: str) -> bool:
        """Count a refusal; return whether to log it, because it is the first of its cause."""
        self.latest = one_line(text)
        name = cause(text)
        self._other = self.counts.pop("other", 0)
        self.counts[name] = self.counts.pop(name, 0) + 1  # moves it to the end, as the newest
        if len(self.counts) > MAX_CAUSES:
            self._other += self.counts.pop(next(iter(self.counts)))
        if self._other:
            self.counts["other"] = self._other
        if name in self._told or len(self._told) >= MAX_TOLD:
            return False
        self._told.add(name)
        return True
