# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train check-export` and its measurements."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_make import write_preset

from cli_run import train
from magicfuse_ros.backends import select
from magicfuse_training.commands import check_export
from magicfuse_training.commands.check_export import check_network, random_model
from magicfuse_training.export.compare import decibels, relative_error
from magicfuse_training.export.measure import Measure
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset


def test_the_published_fusion_network_is_the_same_in_both_libraries(small_paper: MagicFuse) -> None:
    model = random_model(small_paper.preset)
    assert all(parameter.any() for parameter in model.parameters())
    libraries = [select("onnxruntime"), select("openvino")]
    eager, *calls = check_network(model, "mkf", "float32", libraries)
    assert eager.library.startswith("torch ") and eager.distance is None
    assert [call.library.split()[0] for call in calls] == ["onnxruntime", "openvino"]
    for call in calls:
        assert call.distance is not None and 0 < call.distance < 1e-4
        assert call.seconds > 0


def test_what_differs_is_an_error_that_names_it(
    small_preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_preset(small_preset, tmp_path / "small.yaml")
    command = ("check-export", "--preset", preset, "--network", "segmentation", "decoder")
    command += ("--backend", "onnxruntime", "tensorrt")
    code, output = train(*command)
    assert code == 0 and "skipped tensorrt: " in output and "0.0e+00" in output, output
    monkeypatch.setattr(check_export, "TOLERANCE", -1.0)
    code, output = train(*command)
    assert code == 2 and "segmentation in onnxruntime" in output and "beyond the limit" in output


def test_distances_of_known_cases() -> None:
    want = np.array([0.0, -2.0, 1.0], np.float32)
    assert relative_error(want + np.float32(0.5), want) == pytest.approx(0.25)
    pixels = np.array([10, 10, 10, 10], np.uint8)
    assert relative_error(np.array([9, 10, 11, 12], np.uint8), pixels) == 0.25
    assert decibels(want * np.float32(0.9), want) == pytest.approx(20, abs=1e-3)
    for distance in (relative_error, decibels):  # NaN is within no limit
        assert np.isnan(distance(want * np.float32("nan"), want))


def test_memory_is_that_of_what_is_done_within() -> None:
    with Measure() as large:
        torch.ones(50_000_000)
    with Measure() as small:
        torch.ones(1000)
    assert large.gigabytes == pytest.approx(0.2, abs=0.02) and large.seconds > 0
    assert small.gigabytes < 0.02
