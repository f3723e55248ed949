"""Errors of the training package that a user can fix; the command line prints one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from magicfuse_ros.errors import MagicFuseError


class PresetError(MagicFuseError):
    """An unusable preset: not found, not YAML, an unknown key, a value out of range."""


class RecipeError(MagicFuseError):
    """An unusable recipe: not YAML, an unknown key or stage, keys that conflict."""


class TrainingError(MagicFuseError):
    """A run that cannot start, resume or finish."""


class ExportError(MagicFuseError):
    """A graph that does not match its network."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'NEAREST'?", or "; expected one of ..." if nothing is near."""
    known = list(known)
    if near := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean '{near[0]}'?"
    return f"; expected one of {', '.join(known)}"
