# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What a stage with frozen batch statistics does before its first step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.stages.randomness import seed_step
from magicfuse_training.stages.revival import revive
from magicfuse_training.stages.stage import to_device
from magicfuse_training.stages.statistics import measure_new

BATCHES, AT_ONCE = 16, 16  # batches for statistics, and the most crops of each


class _Batches:
    """The first batches of a run; they are made whenever they are read."""

    def __init__(self, crops: Crops, device: torch.device) -> None:
        self._crops, self._device = crops, device

    def __iter__(self) -> Iterator[Batch]:
        size = min(self._crops.config.batch, AT_ONCE)
        for start in range(0, BATCHES * size, size):
            yield to_device(self._crops[range(start, start + size)], self._device)


def prepare(module: nn.Module, crops: Crops, device: torch.device) -> list[str]:
    """Measure the batch statistics of layers that have none, and revive dead channels.

    The crops do not depend on the number of processes or parts.

    Returns:
        What was done, a sentence each; none if `module` stays as it was.
    """
    batches = _Batches(crops, device)
    seed_step(crops.seed, 0, 0)
    done = []
    if measured := measure_new(module, batches):
        done.append(f"measured the batch statistics of {len(measured)} new layers")
    if revived := revive(module, batches):
        where = ", ".join(f"{name} {count}" for name, count in revived.items())
        done.append(f"revived {sum(revived.values())} dead channels: {where}")
    return done
