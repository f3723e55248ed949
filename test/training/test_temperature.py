# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.


from dataclasses import replace

import numpy as np
import pytest
import torch
from test_data import scene

from magicfuse_training.data.classes import IGNORE
from magicfuse_training.data.mix import Group
from magicfuse_training.data.scenes import Scene
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.stages.temperature import _scores, fit_temperature

NIGHT = 2  # such scenes are used as they are


def labelled_by(model: MagicFuse, temperature: float, seed: int) -> Scene:
    """Return a scene whose labels the model predicts with the probabilities of a temperature."""
    rng = np.random.default_rng(seed)
    visible = rng.integers(0, 256, (64, 96, 3), np.uint8)
    scores, _ = _scores(model, visible, np.zeros((64, 96), np.uint8))
    drawn = torch.multinomial((scores / temperature).softmax(0).T, 1)[:, 0]
    label = drawn.reshape(16, 24).numpy().astype(np.uint8).repeat(4, 0).repeat(4, 1)
    return replace(scene(False, False), visible=visible, label=label)


@pytest.mark.parametrize("true", [0.75, 1.5])
def test_the_temperature_is_the_one_that_labels_are_drawn_with(
    small_model: MagicFuse, true: float
) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        small_model.segmentation.conv2.weight.mul_(10)  # scores that differ
    scenes = [labelled_by(small_model, true, seed) for seed in range(15)]
    unlabelled = replace(scenes[0], label=np.full_like(scenes[0].label, IGNORE))
    fitted = fit_temperature(
        small_model, [Group(NIGHT, scenes, False), Group(NIGHT, [unlabelled], False)]
    )
    assert fitted == pytest.approx(true, rel=0.1)
    assert small_model.segmentation.temperature.item() == pytest.approx(fitted)
    with pytest.raises(TrainingError, match="needs frames with labels"):
        fit_temperature(small_model, [Group(NIGHT, [unlabelled], False)])


def test_a_head_that_is_not_refined_has_none(
    small_model: MagicFuse, small_paper: MagicFuse
) -> None:
    groups = [Group(NIGHT, [labelled_by(small_model, 1.0, 0)], False)]
    with pytest.raises(TrainingError, match="preset 'paper' has segmentation_width 0"):
        fit_temperature(small_paper, groups)
