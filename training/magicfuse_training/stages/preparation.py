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

import itertools
import math
from collections.abc import Iterator

import torch
from torch import nn

from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.data.device_crops import DeviceCrops
from magicfuse_training.stages.randomness import seed_step
from magicfuse_training.stages.revival import revive
from magicfuse_training.stages.stage import to_device
from magicfuse_training.stages.statistics import measure_new

BATCHES, AT_ONCE = 16, 16  # batches for statistics, and the most crops of each


class _Batches:
    """The first batches of a run; they are made whenever they are read.

    Crops on the device come in parts of the size that training uses, because a smaller part may
    lack the rarest group. Such a part holds one group after the other, so each batch takes every
    n-th crop of it.
    """

    def __init__(self, crops: Crops, part: int, device: torch.device) -> None:
        whole = isinstance(crops, DeviceCrops)
        self._read = part if whole else min(crops.config.batch, AT_ONCE)
        self._crops, self._device = crops, device

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(self._endless(), BATCHES)

    def _endless(self) -> Iterator[Batch]:
        batches = math.ceil(self._read / AT_ONCE)
        for start in itertools.count(0, self._read):
            part = self._crops[range(start, start + self._read)]
            for i in range(batches):
                some = {name: values[i::batches] for name, values in part.items()}
                yield to_device(some, self._device)


def prepare(module: nn.Module, crops: Crops, part: int, device: torch.device) -> list[str]:
    """Measure the batch statistics of layers that have none, and revive dead channels.

    Crops made on the CPU do not depend on the number of processes or parts.

    Args:
        module: the loss of the stage; changed in place.
        crops: the training data.
        part: crops of a part of a batch, as training reads them.
        device: of `module`.

    Returns:
        What was done, a sentence each; none if `module` stays as it was.
    """
    batches = _Batches(crops, part, device)
    seed_step(crops.seed, 0, 0)
    done = []
    if measured := measure_new(module, batches):
        done.append(f"measured the batch statistics of {len(measured)} new layers")
    if revived := revive(module, batches):
        where = ", ".join(f"{name} {count}" for name, count in revived.items())
        done.append(f"revived {sum(revived.values())} dead channels: {where}")
    return done
