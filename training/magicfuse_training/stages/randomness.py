"""Randomness for a run that can resume: a function of the seed and the step alone."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_step(seed: int, step: int, part: int) -> None:
    """Seed python, numpy and torch for one part of the batch of one step.

    Parts are numbered over all processes. Each part draws its own noise, and two processes draw the
    same numbers as one process that takes the same batch in two parts.
    """
    words = np.random.SeedSequence(seed, spawn_key=(step, part)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))
