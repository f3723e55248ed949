# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Constants on the scores of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from magicfuse_training.data.mix import Source
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.recipe import ClassBias
from magicfuse_training.stages.class_bias import add_class_bias, fit, mean_iou


def test_iou_of_a_known_case() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]
    assert mean_iou(scores, np.array([0, 0, 1, 0]), 3) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_called_too_readily_is_called_less() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 4000, p=[0.6, 0.35, 0.05])
    scores = np.float32(2) * np.eye(3, dtype=np.float32)[truth] + rng.normal(size=(4000, 3))
    scores[:, 2] += 1
    pixels = [(scores.astype(np.float32), truth)]
    bias = fit(pixels, [0, 1, 2], 3)
    assert bias[2] < 0
    assert mean_iou(scores + bias, truth, 3) > mean_iou(scores, truth, 3) + 0.05
    assert fit(pixels, [], 3).tolist() == [0, 0, 0]


@pytest.fixture
def streets(tmp_path: Path) -> Source:
    rng = np.random.default_rng(0)
    for kind, image in (("vi", (48, 96, 3)), ("ir", (48, 96)), ("label", (48, 96))):
        (tmp_path / kind).mkdir()
        for i in range(4):
            pixels = rng.integers(0, 200, image, np.uint8)
            pixels = np.full(image, i % 3, np.uint8) if kind == "label" else pixels
            cv2.imwrite(str(tmp_path / kind / f"{i}.png"), pixels)
    return Source("folder", tmp_path)


def test_the_constants_are_part_of_the_head(
    build_model: Callable[[], MagicFuse], streets: Source
) -> None:
    model, before = build_model(), build_model()
    bias = add_class_bias(model, [streets], ClassBias(data=["folder:x"], keep=["building"]))
    assert any(bias) and bias[1] == 0
    change = model.segmentation.conv2.bias - before.segmentation.conv2.bias  # type: ignore[operator]
    assert change.tolist() == pytest.approx(bias, abs=0.01)
    state, others = before.state_dict(), model.state_dict()
    changed = [name for name in state if not torch.equal(state[name], others[name])]
    assert changed == ["segmentation.conv2.bias"]


def test_an_unknown_class_and_a_preset_without_a_head_are_named(
    small_model: MagicFuse, small_paper: MagicFuse, streets: Source
) -> None:
    with pytest.raises(TrainingError, match=r"keep has 'people'; expected some of sky, "):
        add_class_bias(small_model, [streets], ClassBias(data=["folder:x"], keep=["people"]))
    with pytest.raises(TrainingError, match="needs a segmentation head"):
        add_class_bias(small_paper, [streets], ClassBias(data=["folder:x"]))
