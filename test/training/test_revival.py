# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from pathlib import Path

import pytest
import torch
from training_process import small_crops

from magicfuse_training.data.crops import Batch
from magicfuse_training.model import MagicFuse
from magicfuse_training.networks.blocks import ResidualBlock
from magicfuse_training.stages.revival import revive
from magicfuse_training.stages.stage import StageModule
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.statistics import measure_new
from magicfuse_training.stages.trainer import Trainer

BLOCK = "encoder.context.deeper.1.0"
DEAD = [0, 3]


@pytest.fixture
def block(small_model: MagicFuse, batch: Batch) -> ResidualBlock:
    """A block of the small model that takes part in the result, with two dead channels."""
    module = StageModule(small_model, STAGES["masks"].started_from(small_model))
    measure_new(module, [batch])
    revive(module, [batch])
    found = small_model.get_submodule(BLOCK)
    assert isinstance(found, ResidualBlock)
    torch.nn.init.ones_(found.norm2.weight)
    torch.nn.init.normal_(found.conv2.weight, std=0.1)
    with torch.no_grad():
        found.norm1.weight[DEAD], found.norm1.bias[DEAD] = 0.0, -1.0
    return found


def test_dead_channels_come_alive_and_change_nothing_at_first(
    small_model: MagicFuse, block: ResidualBlock, batch: Batch
) -> None:
    module = StageModule(small_model, STAGES["masks"].started_from(small_model))
    torch.manual_seed(0)
    before = module(batch)[1]
    assert revive(module, [batch, batch])[f"model.{BLOCK}"] == len(DEAD)
    torch.manual_seed(0)
    torch.testing.assert_close(module(batch)[1], before)
    seen: list[torch.Tensor] = []
    block.conv2.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    total, _ = module(batch)
    assert (seen[0].amax((0, 2, 3))[DEAD] > 0).all()
    assert seen[0].std((0, 2, 3))[DEAD].max() < 2, "by its own statistics"
    total.backward()
    assert block.conv2.weight.grad[:, DEAD].abs().sum() > 0, "it learns how to use them"
    assert revive(module, [batch]) == {}, "nothing is dead now"


def test_a_stage_that_does_not_train_a_block_leaves_it_as_it_is(
    small_model: MagicFuse, block: ResidualBlock, batch: Batch
) -> None:
    assert revive(StageModule(small_model, STAGES["mkf"]), [batch]) == {}
    assert (block.norm1.bias[DEAD] == -1).all()


def test_a_run_with_frozen_statistics_revives_and_says_so(
    small_model: MagicFuse, block: ResidualBlock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(STAGES["masks"], small_model, tmp_path, steps=1)
    averaged = trainer.run(small_crops(), workers=0)
    assert f" dead channels: model.{BLOCK} 2" in capsys.readouterr().out
    theirs = averaged.get_submodule(BLOCK)
    assert isinstance(theirs, ResidualBlock)
    assert (theirs.norm1.bias[DEAD] > -0.5).all(), "also in the running average"
