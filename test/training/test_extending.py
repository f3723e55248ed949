# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The worked example of docs/extending.md: custom classes, a layout and a degradation."""

import re
from pathlib import Path

import dataset_files
import numpy as np
import pytest
import yaml

from cli_run import train
from magicfuse_training import degradations
from magicfuse_training.data.classes import IGNORE
from magicfuse_training.data.datasets import DATASETS
from magicfuse_training.data.mix import Source
from magicfuse_training.degradations import DefocusBlur, Jpeg, add_degradation, degrade
from magicfuse_training.errors import PresetError, TrainingError
from magicfuse_training.metrics.frames import Frames
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.runner import Budget, train_stage
from magicfuse_training.stages.stages import STAGES

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


@pytest.fixture
def extended(
    least_preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """Run the page's script; return its preset, scaled down, and recordings in its layout."""
    monkeypatch.setattr(degradations, "PHYSICAL_ORDER", [*degradations.PHYSICAL_ORDER])
    monkeypatch.setattr(degradations, "_DRAW", {**degradations._DRAW})
    monkeypatch.delitem(DATASETS, "drive", raising=False)
    exec(block("python"), {"__name__": "drive"})
    added = yaml.safe_load(block("yaml"))
    values = least_preset.model_dump(mode="json")
    values["losses"] |= added.pop("losses")
    preset = tmp_path / "drive.yaml"
    preset.write_text(yaml.safe_dump(values | added))
    root = tmp_path / "recordings"
    for split in ("train", "val"):
        for day in ("monday", "friday"):
            dataset_files.picture(root / split / day / "rgb" / "a.jpg")
            dataset_files.label(root / split / day / "classes" / "a.png", [0, 12, 7, IGNORE, 1])
    return preset, root


def test_the_example_is_checked_trained_and_read(
    extended: tuple[Path, Path], tmp_path: Path
) -> None:
    path, root = extended
    code, output = train("check-data", "drive", root, "--preset", path)
    assert code == 0, output
    assert "12 │ car │ car" in output, "the table has names of the preset"
    code, output = train("check-data", "drive", root)
    assert code == 1 and "unknown label id" in output

    preset = load_preset(str(path))
    names = [c.name for c in preset.classes]
    assert len(names) == 13 and names[0] == "person"
    frame = next(iter(Frames(Source("drive", root), names)))
    assert frame.name == "friday/a" and frame.label is not None
    assert frame.label[0, :5].tolist() == [0, 12, 7, IGNORE, 1]

    source, budget = Source("drive", root), Budget(steps=1, batch=2, workers=0)
    model = MagicFuse(preset)
    trained = train_stage(STAGES["mkf"], model, tmp_path / "mkf", [source], budget, "nothing")
    assert trained.segmentation.conv2.out_channels == 13
    device = Budget(steps=1, batch=2, device_crops=True)
    with pytest.raises(TrainingError, match="degradations vignette, which only crops made on the"):
        train_stage(STAGES["mkf"], model, tmp_path / "x", [source], device, "nothing")


def test_an_added_degradation_is_one_like_the_others(extended: tuple[Path, Path]) -> None:
    gray = np.full((40, 60, 3), 120, np.uint8)
    lit = degrade(gray, "vignette", 1.0, np.random.default_rng(0))
    assert (lit[20, 30] > 115).all() and (lit[0, 0] < 40).all()
    alone = degrade(gray, "dark+vignette", 1.0, np.random.default_rng(0))
    assert (alone == degrade(gray, "vignette+dark", 1.0, np.random.default_rng(0))).all()
    with pytest.raises(ValueError, match="name is 'vignette'; expected one"):
        add_degradation("vignette", DefocusBlur, after=Jpeg)
    with pytest.raises(ValueError, match=r"expected one of clean, dark, .*vignette"):
        degrade(gray, "vignete", 1.0, np.random.default_rng(0))


def test_a_preset_with_an_unknown_degradation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    nano = (PAGE.parents[1] / "training/magicfuse_training/presets/nano.yaml").read_text()
    path.write_text(nano + "degradations: {vignette: 0.2}\n")
    with pytest.raises(PresetError, match="degradation is 'vignette'; expected one of clean, dark"):
        load_preset(str(path))
