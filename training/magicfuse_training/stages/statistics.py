# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Batch statistics of layers that are new in a model whose other statistics stay frozen."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from magicfuse_training.data.crops import Batch
from magicfuse_training.networks.blocks import ResidualBlock


def measure_new(module: nn.Module, batches: Iterable[Batch]) -> list[str]:
    """Measure the statistics of trained batch norms that have none yet; return their names.

    A batch norm that keeps its initial mean of 0 and variance of 1 does not normalise.
    Most of the channels behind it then die within the first steps: three residual blocks of an
    earlier `nano` computed almost nothing. The last norm of a new residual block is not measured:
    see `_open`.

    Args:
        module: called with each batch, without a gradient. Its modes stay as they are.
        batches: what `module` is called with. Not read if all trained norms have statistics.
    """
    norms = {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.weight.requires_grad and _is_new(norm)
    }
    if not norms:
        return []
    new = sorted(norms)
    for block in module.modules():
        if isinstance(block, ResidualBlock) and block.norm2 in norms.values():
            _open(block)  # unless it adds something already
    norms = {name: norm for name, norm in norms.items() if _is_new(norm)}
    training = {name: norm.training for name, norm in norms.items()}
    momentum = {name: norm.momentum for name, norm in norms.items()}
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.no_grad():
        for batch in batches:
            module(batch)
    for name, norm in norms.items():
        norm.momentum = momentum[name]
        norm.train(training[name])
    return new


def _open(block: ResidualBlock) -> None:
    """Let a new block, which adds nothing yet, start with zero kernels in place of a zero gain.

    Behind a gain of zero the kernels get no gradient, and an optimizer that moves every kernel by
    the same amount (Muon) only stirs them, so that the gain finds no direction either: after 1,200
    steps the gains of six new blocks of `nano` were still below 0.002.
    """
    assert isinstance(block.norm2, nn.BatchNorm2d) and block.conv2.bias is not None
    if block.norm2.weight.any():
        return
    assert block.norm2.running_var is not None
    with torch.no_grad():
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
        block.norm2.weight.fill_(1.0)
        block.norm2.running_var.fill_(1.0 - block.norm2.eps)  # the norm changes nothing


def _is_new(norm: nn.BatchNorm2d) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    return bool((mean == 0).all() and (variance == 1).all())
