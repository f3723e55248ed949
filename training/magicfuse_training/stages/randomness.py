# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Randomness for a run that can resume: a function of the seed and the step alone."""

from __future__ import annotations

import random

import numpy as np
import torch

# Draws the same in every part of a step's batch. A draw that decides how often a network runs must
# be such a draw: with batch norms that share statistics, processes wait for each other each time.
of_step = random.Random()


def seed_step(seed: int, step: int, part: int) -> None:
    """Seed python, numpy and torch for one part of the batch of one step.

    Parts are numbered over all processes. Each part draws its own noise, and two processes draw the
    same numbers as one process that takes the same batch in two parts.
    """
    words = np.random.SeedSequence(seed, spawn_key=(step, part)).generate_state(3)
    random.seed(int(words[0]))
    of_step.seed(int(np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1)[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))
