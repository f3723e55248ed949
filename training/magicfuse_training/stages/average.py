"""The mean of several trained models; often better than each if one was trained from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def weighted_mean(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float], networks: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the float32 mean of the weights of some models of one preset.

    Everything that is not averaged comes from the last of `states`: integers such as a count of
    batches, weights that another state lacks, and networks that are not named, if any are named.
    """
    *others, last = states
    mean = dict(last)
    for name, value in last.items():
        named = not networks or name.split(".")[0] in networks
        if not (named and value.is_floating_point() and all(name in state for state in others)):
            continue
        pairs = zip(states, weights, strict=True)
        mean[name] = sum(
            (state[name].float() * (weight / sum(weights)) for state, weight in pairs),
            torch.zeros_like(value, dtype=torch.float32),
        )
    return mean
