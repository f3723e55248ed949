# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Estimates how far a score would move with other frames: the percentile bootstrap.

Frames are redrawn with replacement, as many as there are, 1000 times with a fixed seed. The score's
interval holds 95 % of the resulting scores (Efron and Tibshirani, 10.1201/9780429246593). The
interval says nothing about frames that were never taken: neighbours in a video are alike, and other
streets differ by more than it suggests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

from magicfuse_training.arrays import F64

RESAMPLES = 1000
PERCENT = (2.5, 97.5)
_SEED = 0
_AT_ONCE = 50  # resamples in memory: all of them, for thousands of frames, would be gigabytes


class Figure(NamedTuple):
    """A score and the ends of its 95 % interval; NaN if there is nothing to score."""

    value: float
    low: float
    high: float


def is_known(score: object) -> TypeGuard[Figure]:
    """Return whether a score is a figure, and not NaN."""
    return isinstance(score, Figure) and not np.isnan(score.value)


def figure_of(statistics: npt.ArrayLike, score: Callable[[F64], F64] = np.asarray) -> Figure:
    """Return a score and its interval.

    Args:
        statistics: the parts of the score, one row per frame: (frames, ...).
        score: computes a score from the mean over frames: (samples, ...) to (samples,). It receives
            means, so a share is the ratio of two of them. By default, the statistic is the score:
            (frames,); a frame whose score is NaN is left out.
    """
    rows = np.asarray(statistics, np.float64)
    if rows.ndim == 1:
        rows = rows[~np.isnan(rows)]
    frames = len(rows)
    if not frames:
        return Figure(np.nan, np.nan, np.nan)
    flat = rows.reshape(frames, -1)
    rng = np.random.default_rng(_SEED)
    starts = range(0, RESAMPLES, _AT_ONCE)
    means = np.concatenate([_resampled(flat, min(_AT_ONCE, RESAMPLES - s), rng) for s in starts])
    value = float(score(rows.mean(0)[None])[0])
    samples = score(means.reshape(RESAMPLES, *rows.shape[1:]))
    if np.isnan(value) or np.isnan(samples).all():
        return Figure(np.nan, np.nan, np.nan)
    low, high = np.nanpercentile(samples, PERCENT)
    return Figure(value, float(low), float(high))


def figures_of(columns: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    """Return the means over frames of several scores, by name; see `figure_of`."""
    return {name: figure_of(column) for name, column in columns.items()}


def _resampled(rows: F64, count: int, rng: np.random.Generator) -> F64:
    """Return the means (count, n) of resamples of rows (frames, n)."""
    frames = len(rows)
    places = rng.integers(frames, size=(count, frames)) + frames * np.arange(count)[:, None]
    counts = np.bincount(places.ravel(), minlength=count * frames).reshape(count, frames)
    return np.asarray((counts / frames) @ rows, np.float64)


def share(hits: F64, of: F64) -> F64:
    """Return hits / of; NaN if `of` is 0."""
    return np.asarray(np.divide(hits, of, out=np.full_like(of, np.nan), where=of > 0), np.float64)
