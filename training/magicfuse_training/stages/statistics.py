# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Batch statistics of channels that are new in a model whose other statistics stay frozen."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from magicfuse_training.data.crops import Batch
from magicfuse_training.networks.blocks import ResidualBlock


def measure_new(module: nn.Module, batches: Iterable[Batch]) -> list[str]:
    """Measure the statistics of channels of trained batch norms that have none yet.

    A batch norm that keeps its initial mean of 0 and variance of 1 does not normalise.
    Most of the channels behind it then die within the first steps: three residual blocks of an
    earlier `nano` computed almost nothing. The last norm of a new residual block is not measured:
    see `_open`.

    Args:
        module: called with each batch, without a gradient. Its modes stay as they are.
        batches: what `module` is called with. Not read if all channels have statistics.

    Returns:
        The names of the batch norms that had new channels.
    """
    norms = {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.weight.requires_grad and _new(norm).any()
    }
    names = sorted(norms)
    for block in module.modules():
        if isinstance(block, ResidualBlock) and block.norm2 in norms.values():
            _open(block)
    left = [norm for norm in norms.values() if _new(norm).any()]
    if left:
        with ExitStack() as hooks, torch.no_grad():
            for norm in left:
                measure = _Measure(_new(norm))
                hooks.callback(norm.register_forward_pre_hook(measure).remove)
            for batch in batches:
                module(batch)
    return names


class _Measure:
    """Hook before a batch norm: gives some channels their mean statistics over the batches so far.

    It does so before each call, so that later layers are measured with normalised inputs.
    """

    def __init__(self, channels: Tensor) -> None:
        self._channels = channels
        self._sum, self._count = torch.zeros(1), 0

    def __call__(self, norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        now = torch.stack(torch.var_mean(given[0][:, self._channels].float(), (0, 2, 3)))
        self._sum, self._count = self._sum.to(now) + now, self._count + 1
        variance, mean = self._sum / self._count
        norm.running_var[self._channels] = variance
        norm.running_mean[self._channels] = mean


@torch.no_grad()
def _open(block: ResidualBlock) -> None:
    """Let a new block, which adds nothing yet, start with zero kernels in place of a zero gain.

    The same holds for new channels of a block. Behind a gain of zero the kernels get no gradient,
    and an optimizer that moves every kernel by the same amount (Muon) only stirs them, so that the
    gain finds no direction either: after 1,200 steps the gains of six new blocks of `nano` were
    still below 0.002.
    """
    assert isinstance(block.norm2, nn.BatchNorm2d) and block.conv2.bias is not None
    assert block.norm2.running_var is not None
    closed = _new(block.norm2) & (block.norm2.weight == 0)
    block.conv2.weight[closed] = 0.0
    block.conv2.bias[closed] = 0.0
    block.norm2.weight[closed] = 1.0
    block.norm2.running_var[closed] = 1.0 - block.norm2.eps  # the norm changes nothing


def _new(norm: nn.BatchNorm2d) -> Tensor:
    """Return which channels have no statistics yet, (C,) bool."""
    assert norm.running_mean is not None and norm.running_var is not None
    return (norm.running_mean == 0) & (norm.running_var == 1)
