# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

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
