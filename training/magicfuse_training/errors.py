"""The errors of the training package that a user can act on; the command line prints one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from magicfuse_ros.errors import MagicFuseError


class PresetError(MagicFuseError):
    """A preset that cannot be used: not found, not YAML, a key unknown, a value out of range."""


class RecipeError(MagicFuseError):
    """A recipe that cannot be followed: not YAML, a key or a stage unknown, keys that clash."""


class TrainingError(MagicFuseError):
    """A run that cannot start, go on, or end well."""


class ExportError(MagicFuseError):
    """A graph that does not do what its network does."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'NEAREST'?", or "; expected one of ..." where nothing is near."""
    known = list(known)
    if near := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean '{near[0]}'?"
    return f"; expected one of {', '.join(known)}"
