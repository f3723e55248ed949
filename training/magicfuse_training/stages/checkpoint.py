"""Checkpoints: written whole or not at all, and refused where they cannot be gone on from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from magicfuse_training.errors import TrainingError


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old or the new one whole."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def write_atomically(text: str, path: Path) -> None:
    """Write a text file so that a kill at any moment leaves the old or the new one whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def load_checkpoint(path: Path, keys: set[str]) -> dict[str, Any]:
    """Read a checkpoint to go on from.

    Raises:
        TrainingError: naming what it lacks, as one of an earlier version does.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if missing := sorted(keys - state.keys()):
        raise TrainingError(
            f"'{path}' lacks {', '.join(missing)}: it can be exported or be the start of the next "
            "stage, but this stage cannot go on from it; to train it again, use another --run"
        )
    return state
