"""The percentiles by which ages and times are reported."""

from __future__ import annotations

import numpy as np

_PERCENTILES = (50, 95, 99)


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of `values`; empty if there are no values."""
    if not values:
        return {}
    found = np.percentile(values, _PERCENTILES)
    return {f"p{p}": float(value) for p, value in zip(_PERCENTILES, found, strict=True)}
