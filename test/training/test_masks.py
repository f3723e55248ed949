# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Masks learn while all else is held, and new layers get their batch statistics measured."""

from pathlib import Path

import torch
from torch import nn
from training_process import small_crops

from magicfuse_training.data.crops import Batch
from magicfuse_training.model import MagicFuse
from magicfuse_training.optimizer import MuonConfig
from magicfuse_training.stages.masks import masks_loss
from magicfuse_training.stages.stage import StageModule
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.statistics import measure_new
from magicfuse_training.stages.trainer import Trainer

NEW = ("encoder.context.deeper", "encoder.context.last")
NEW_CHANNELS = [2, 5]


def test_masks_are_learnt_and_what_else_changes_is_held_against_them(
    small_model: MagicFuse, batch: Batch
) -> None:
    loss = masks_loss(small_model)
    terms = loss(small_model, batch)
    assert terms.pop("segmentation") > 0
    assert [v.item() for v in terms.values()] == [0, 0, 0], "nothing has changed yet"
    with torch.no_grad():
        small_model.ikr.outlet.weight.add_(0.05)
    held = {name: v.item() for name, v in loss(small_model, batch).items()}
    assert held["restored"] > 0 and held["weight"] > 0, "F reads the restored latent"
    assert held["thermal"] == 0


def test_new_statistics_are_measured_and_old_ones_stay(
    small_model: MagicFuse, batch: Batch
) -> None:
    norms = {k: m for k, m in small_model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, norm in norms.items():
        if not name.startswith(NEW):
            norm.running_mean.fill_(0.25)
    module = StageModule(small_model, STAGES["few_step"])
    names = measure_new(module, [batch, batch])
    assert names and all(name.removeprefix("model.").startswith(NEW) for name in names)
    assert not any(norm.training for norm in norms.values())
    assert {norm.momentum for norm in norms.values()} == {0.1}
    seen: list[torch.Tensor] = []
    norm = small_model.encoder.context.deeper[-1][0].norm1
    norm.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    module(batch)
    off = (seen[0].mean((0, 2, 3)) - norm.running_mean) / norm.running_var.sqrt()
    assert off.abs().max() < 0.1 < (seen[0].std((0, 2, 3)) - 1).abs().max()
    assert (seen[0].std((0, 2, 3)) / norm.running_var.sqrt() - 1).abs().max() < 0.1
    assert not measure_new(module, [batch]), "they have statistics now"


def test_new_channels_of_a_layer_are_measured_and_its_others_stay(
    small_model: MagicFuse, batch: Batch
) -> None:
    block = small_model.encoder.fine
    for norm in (m for m in small_model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.fill_(0.25)
    for norm in (block.norm1, block.norm2):
        norm.running_mean[NEW_CHANNELS] = 0.0
    with torch.no_grad():
        block.norm2.weight[NEW_CHANNELS] = 0.0
    module = StageModule(small_model, STAGES["few_step"].started_from(small_model))
    names = measure_new(module, [batch, batch])
    assert names == ["model.encoder.fine.norm1", "model.encoder.fine.norm2"]
    kept = torch.ones(len(block.norm1.running_mean), dtype=torch.bool)
    kept[NEW_CHANNELS] = False
    assert (block.norm1.running_mean[kept] == 0.25).all()
    assert (block.norm1.running_var[kept] == 1).all() and (block.norm2.running_var[kept] == 1).all()
    seen: list[torch.Tensor] = []
    block.norm1.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    module(batch)
    variance, mean = torch.var_mean(seen[0], (0, 2, 3))
    torch.testing.assert_close(block.norm1.running_mean[~kept], mean[~kept])
    torch.testing.assert_close(block.norm1.running_var[~kept], variance[~kept])
    assert (block.norm2.weight[~kept] == 1).all() and not block.conv2.weight[~kept].any()
    assert block.conv2.weight[kept].any()
    assert not measure_new(module, [batch]), "they have statistics now"


def test_a_new_block_adds_nothing_at_first_and_learns_from_the_first_step(
    small_model: MagicFuse, batch: Batch
) -> None:
    """With zero gains and random kernels, new blocks still added nothing after 1,200 steps."""
    image = batch["degraded"]
    norms = {k: m for k, m in small_model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, norm in norms.items():
        if not name.startswith(NEW):
            norm.running_mean.fill_(0.25)
        elif name.endswith("norm2"):
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)
    small_model.eval()
    with torch.no_grad():
        before = small_model.encoder(image)[0]
    module = StageModule(small_model, STAGES["masks"].started_from(small_model))
    assert measure_new(module, [batch]) and not measure_new(module, [batch])
    with torch.no_grad():
        torch.testing.assert_close(small_model.encoder(image)[0], before)
    block = small_model.encoder.context.last[0]
    assert not block.conv2.weight.any() and (block.norm2.weight == 1).all()
    optimizer = MuonConfig(kind="muon", learning_rate=0.01).build(dict(block.named_parameters()))
    module(batch)[0].backward()
    assert block.conv2.weight.grad.any()
    optimizer.step()
    with torch.no_grad():
        assert not torch.allclose(small_model.encoder(image)[0], before, atol=1e-3)


def test_a_run_with_frozen_statistics_measures_what_is_new_and_keeps_it(
    small_model: MagicFuse, tmp_path: Path
) -> None:
    norm = small_model.encoder.context.deeper[-1][0].norm1
    trainer = Trainer(STAGES["masks"], small_model, tmp_path, steps=2)
    averaged = trainer.run(small_crops(), workers=0)
    assert norm.running_mean.any()
    theirs = averaged.encoder.context.deeper[-1][0].norm1
    assert torch.equal(theirs.running_mean, norm.running_mean), "also in the running average"


def test_what_the_decoder_reads_stays_and_the_condition_learns(
    small_model: MagicFuse, tmp_path: Path
) -> None:
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        condition, details, _ = small_model.encoder(image)
    local = small_model.encoder.coarse[0].conv1.weight.detach().clone()
    trained = Trainer(STAGES["masks"], small_model, tmp_path, steps=2).run(small_crops(), workers=0)
    with torch.no_grad():
        learnt, same, _ = trained.encoder(image)
    assert torch.equal(same, details) and not torch.equal(learnt, condition)
    assert not torch.equal(trained.encoder.coarse[0].conv1.weight, local), "local features learn"
