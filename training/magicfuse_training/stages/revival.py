# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Dead channels of residual blocks get new weights; what the model computes stays as it was.

A channel behind a ReLU is dead if it is zero for every pixel: no gradient reaches it any more. ReDo
(arXiv 2302.12902) does the same to neurons that are rarely active.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from magicfuse_training.data.crops import Batch
from magicfuse_training.networks.blocks import ResidualBlock

_SEEN_ENOUGH = 1e-5  # of the variance: less would be enlarged beyond what training tolerates


def revive(module: nn.Module, batches: Iterable[Batch]) -> dict[str, int]:
    """Revive the dead hidden channels of trained residual blocks; return their number by block.

    A revived channel gets a random kernel and normalised values. The block's second convolution
    weighs it with zero at first. Only blocks with batch norms and ReLU are looked at.

    Args:
        module: is called with each batch, without a gradient. Its modes stay as they are.
        batches: what `module` is called with, until no channel is dead; read a second time if one
            is dead after the last.
    """
    blocks = {
        name: block
        for name, block in module.named_modules()
        if isinstance(block, ResidualBlock)
        and isinstance(block.norm1, nn.BatchNorm2d)
        and isinstance(block.act, nn.ReLU)
        and block.conv1.weight.requires_grad
    }
    if not blocks:
        return {}
    dead = _dead(blocks, module, batches)
    for name, channels in dead.items():
        _renew(blocks[name], channels)
    if dead:
        _measure({n: blocks[n] for n in dead}, dead, module, batches)
    return {name: int(channels.sum()) for name, channels in dead.items()}


def _dead(
    blocks: dict[str, ResidualBlock], module: nn.Module, batches: Iterable[Batch]
) -> dict[str, Tensor]:
    """Return masks (C,) of dead hidden channels, for the blocks that have any."""
    highest: dict[str, Tensor] = {}
    with ExitStack() as hooks, torch.no_grad():
        for name, block in blocks.items():

            def see(_: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
                now = given[0].amax((0, 2, 3)).float()
                highest[name] = torch.maximum(highest.get(name, now), now)

            hooks.callback(block.conv2.register_forward_pre_hook(see).remove)
        for batch in batches:
            module(batch)
            if all(bool((values > 0).all()) for values in highest.values()):
                return {}
    return {name: values <= 0 for name, values in highest.items() if bool((values <= 0).any())}


@torch.no_grad()
def _renew(block: ResidualBlock, channels: Tensor) -> None:
    """Give the hidden channels, a mask (C,), the weights of a new block."""
    new = nn.Conv2d(block.conv1.in_channels, block.conv1.out_channels, 3, padding=1)
    block.conv1.weight[channels] = new.weight.to(block.conv1.weight)[channels]
    assert block.conv1.bias is not None and isinstance(block.norm1, nn.BatchNorm2d)
    block.conv1.bias[channels] = 0.0
    block.norm1.weight[channels], block.norm1.bias[channels] = 1.0, 0.0
    if block.time is not None:
        block.time.weight[channels], block.time.bias[channels] = 0.0, 0.0
    block.conv2.weight[:, channels] = 0.0


def _measure(
    blocks: dict[str, ResidualBlock],
    channels: dict[str, Tensor],
    module: nn.Module,
    batches: Iterable[Batch],
) -> None:
    """Measure the batch statistics of channels, masks (C,): the mean over all batches."""
    seen: dict[str, list[Tensor]] = {name: [] for name in blocks}
    with ExitStack() as hooks, torch.no_grad():
        for name, block in blocks.items():

            def see(_: nn.Module, __: object, made: Tensor, name: str = name) -> None:
                seen[name].append(torch.stack(torch.var_mean(made.float(), (0, 2, 3))))

            hooks.callback(block.conv1.register_forward_hook(see).remove)
        for batch in batches:
            module(batch)
        for name, block in blocks.items():
            norm, mask = block.norm1, channels[name]
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            var, mean = torch.stack(seen[name]).mean(0)
            norm.running_mean[mask] = mean[mask]
            norm.running_var[mask] = var[mask].clamp_min(_SEEN_ENOUGH)
