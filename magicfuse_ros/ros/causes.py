"""Causes are kinds: refusals counted by what is wrong, not by its figures."""

from __future__ import annotations

import re

MAX_CAUSES = 8
_MAX_TOLD = 50
_MAX_QUOTED = 120
_MAX_TEXT = 300
_END = 5000  # characters of either end that are looked at: a message's text may be megabytes long
# A quote after a letter is an apostrophe.
_QUOTED = re.compile(rf"""((?<!\w)['"]|\[)([^'"\[\]]{{{_MAX_QUOTED}}})[^'"\[\]]+""")
# A number that is no part of a name, such as 640x480 and -1.5e-3, but not rgb8, cam_2 or 8UC1.
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?\d[\d.]*(?:e[-+]?\d+)?(?:x\d+)*(?![^\W\d]|\.?\d)", re.IGNORECASE
)


def shortened(text: str) -> str:
    """Return a text in one line whose quoted parts, which come from messages, are cut."""
    if len(text) > 2 * _END:
        text = text[:_END] + text[-_END:]
    text = _QUOTED.sub(r"\1\2…", " ".join(text.split()))
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def cause(text: str) -> str:
    """Return the kind of a refusal: its text, shortened, with `#` in place of numbers."""
    return _NUMBER.sub("#", shortened(text))


class Causes:
    """Counts refusals by cause, the latest causes one by one. Not thread-safe.

    Attributes:
        counts: by cause, at most `MAX_CAUSES` and `other`, into which the cause goes that was not
            seen for the longest time where a new one needs its place.
        latest: the text of the latest refusal, with its figures; empty before the first.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.latest = ""
        self._other = 0
        self._told: set[str] = set()

    @property
    def total(self) -> int:
        """All refusals."""
        return sum(self.counts.values())

    def add(self, text: str) -> bool:
        """Count a refusal; return whether it is to be logged, as the first one of its cause."""
        self.latest = shortened(text)
        name = cause(text)
        self._other = self.counts.pop("other", 0)
        self.counts[name] = self.counts.pop(name, 0) + 1  # the newest is the last
        if len(self.counts) > MAX_CAUSES:
            self._other += self.counts.pop(next(iter(self.counts)))
        if self._other:
            self.counts["other"] = self._other
        if name in self._told or len(self._told) >= _MAX_TOLD:
            return False
        self._told.add(name)
        return True
