# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The noise schedule and the DDIM grids in numpy, shared by the vehicle and the training package.

    symbol            here            meaning
    T                 train_steps     number of noise levels
    beta_t            betas           variance added at level t
    alpha-bar_t       abar            product of (1 - beta) up to t; signal power left
    tau_1 .. tau_K    timesteps       the levels that a reduced-step sampler visits

Sources: DDPM (arXiv 2006.11239, linear betas), DDIM (arXiv 2010.02502, reduced grids),
zero terminal SNR and trailing grids (arXiv 2305.08891, Algorithm 1 and Section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field


class Schedule(BaseModel):
    """A noise schedule as stored in presets and bundles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_steps: int = Field(1000, ge=2, le=100_000, description="number of noise levels T")
    beta_start: float = Field(0.00085, gt=0, lt=1)
    beta_end: float = Field(0.012, gt=0, lt=1)
    zero_terminal_snr: bool = Field(True, description="rescale so that alpha-bar at T is 0")
    prediction: Literal["epsilon", "v"] = "v"

    def alphas_cumprod(self) -> npt.NDArray[np.float64]:
        """Return alpha-bar for t = 0 .. T-1: shape (T,), float64, falling, in [0, 1]."""
        betas = np.linspace(self.beta_start, self.beta_end, self.train_steps)
        abar = np.asarray(np.cumprod(1.0 - betas), np.float64)
        if self.zero_terminal_snr:  # arXiv 2305.08891, Algorithm 1: shift and scale sqrt(abar)
            root = np.sqrt(abar)
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
            abar = np.asarray(root**2, np.float64)
        return abar

    def trailing_timesteps(self, steps: int) -> list[int]:
        """Return K falling time steps that start at T - 1 (arXiv 2305.08891, "trailing").

        Raises:
            ValueError: if `steps` is not in 1 .. T.
        """
        if not 1 <= steps <= self.train_steps:
            raise ValueError(f"steps is {steps}; expected 1 to {self.train_steps}")
        grid = np.round(np.arange(self.train_steps, 0, -self.train_steps / steps)).astype(int) - 1
        return [int(t) for t in grid[:steps]]

    def leading_timesteps(self, steps: int) -> list[int]:
        """Return K falling time steps that end at 0 (arXiv 2305.08891, "leading").

        This is the grid of the published networks: 960, 920, ... 0 for K = 25.

        Raises:
            ValueError: if `steps` is not in 1 .. T.
        """
        if not 1 <= steps <= self.train_steps:
            raise ValueError(f"steps is {steps}; expected 1 to {self.train_steps}")
        return [i * (self.train_steps // steps) for i in reversed(range(steps))]


@dataclass(frozen=True)
class Step:
    """One DDIM step, with both ends explicit."""

    t: int
    abar_t: float
    abar_next: float


def ddim_steps(schedule: Schedule, timesteps: list[int]) -> list[Step]:
    """Pair every time step with the next; after the last one alpha-bar is 1 (no noise left).

    Raises:
        ValueError: if `timesteps` is empty, not strictly falling, or outside 0 .. T-1.
    """
    if not timesteps or any(a <= b for a, b in pairwise(timesteps)):
        raise ValueError(f"timesteps are {timesteps}; expected a strictly falling, non-empty list")
    if timesteps[0] >= schedule.train_steps or timesteps[-1] < 0:
        raise ValueError(f"timesteps are {timesteps}; expected 0 to {schedule.train_steps - 1}")
    abar = schedule.alphas_cumprod()
    ends = [float(abar[t]) for t in timesteps] + [1.0]
    return [Step(t, a, b) for t, a, b in zip(timesteps, ends[:-1], ends[1:], strict=True)]
