"""The mean of several trained models: often better than each, where one went on from another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def weighted_mean(checkpoints: Sequence[Path], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the float32 mean of the averaged weights of some checkpoints of one model.

    What is no float, as a count of batches, is the last checkpoint's.
    """
    mean: dict[str, Tensor] = {}
    for path, weight in zip(checkpoints, weights, strict=True):
        state = torch.load(path, map_location="cpu", weights_only=True)["ema"]
        for name, value in state.items():
            if value.is_floating_point():
                part = value.float() * (weight / sum(weights))
                mean[name] = mean[name] + part if name in mean else part
            else:
                mean[name] = value
    return mean
