# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A preset with MFNet's 9 classes, like `paper`, trains on labels in MFNet's own ids."""

from dataclasses import replace
from pathlib import Path

import dataset_files
import numpy as np
import pytest
import torch
import yaml
from test_make import write_preset
from torch.nn import functional as F

from cli_run import train
from magicfuse_training.commands.stage import check_stage
from magicfuse_training.data.classes import FOLDER, IGNORE, MFNET_CLASSES, to_classes
from magicfuse_training.data.crops import Crops
from magicfuse_training.data.mix import Source, load_groups
from magicfuse_training.errors import TrainingError
from magicfuse_training.losses.segmentation import segmentation_loss
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.runner import crop_config
from magicfuse_training.stages.stage import to_device
from magicfuse_training.stages.stages import STAGES, mkf_loss
from magicfuse_training.stages.trainer import Trainer


def crops_of(root: Path, kind: str) -> Crops:
    groups = load_groups([Source(kind, root)], 64, 96, MFNET_CLASSES)
    config = replace(crop_config(2, MFNET_CLASSES), height=64, width=96)
    return Crops([g.scenes for g in groups], [1.0] * len(groups), config, 0)


@pytest.mark.parametrize("kind", ["mfnet", "msrs", "msrs-repacked"])
def test_labels_keep_the_ids_of_their_files(kind: str, tmp_path: Path) -> None:
    dataset_files.WRITERS[kind](tmp_path)
    size = dataset_files.HEIGHT, dataset_files.WIDTH
    groups = load_groups([Source(kind, tmp_path)], *size, MFNET_CLASSES)
    scenes = [scene for group in groups for scene in group.scenes]
    assert len(scenes) == 2
    for scene in scenes:
        assert scene.label[0, :5].tolist() == [1, 2, 3, 0, 0]
    assert set(np.unique(crops_of(tmp_path, kind)[range(8)]["label"])) <= {0, 1, 2, 3}


def test_labels_of_a_folder_are_the_presets_ids(tmp_path: Path) -> None:
    ids = np.arange(9, dtype=np.uint8)[None]
    np.testing.assert_array_equal(to_classes(FOLDER, ids, tmp_path, MFNET_CLASSES), ids)


def test_paper_weighs_its_classes_and_caps_w_on_people() -> None:
    preset = load_preset("paper")
    weights = torch.tensor(preset.losses.class_weights)
    assert [c.name for c in preset.classes if c.thermal] == ["person"]
    torch.manual_seed(0)
    logits, label = torch.randn(2, 9, 8, 12), torch.randint(0, 9, (2, 8, 12))
    label[:, :2] = IGNORE
    want = F.cross_entropy(logits, label, weights, ignore_index=IGNORE)
    torch.testing.assert_close(segmentation_loss(logits, label, weights), want)
    heavy = F.cross_entropy(logits, label, weights[torch.arange(9) - 1], ignore_index=IGNORE)
    assert not torch.allclose(want, heavy)


def test_every_stage_of_the_published_form_trains_on_mfnet(
    small_paper: MagicFuse, tmp_path: Path
) -> None:
    dataset_files.mfnet(tmp_path / "mfnet")
    batch = crops_of(tmp_path / "mfnet", "mfnet")[range(2)]
    for name in ("autoencoder", "ikr", "ckg", "mkf"):
        torch.manual_seed(0)
        model = MagicFuse(small_paper.preset)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        trainer = Trainer(STAGES[name], model, tmp_path / name, steps=1)
        terms = trainer.train_step([batch], 0, 0.0)
        assert terms and all(np.isfinite(v) for v in terms.values()), name
        changed = {k.split(".")[0] for k, v in model.state_dict().items() if not v.equal(before[k])}
        assert changed == ({"encoder", "decoder"} if name == "autoencoder" else {name})


def test_the_scores_learn_the_labels_ids(small_paper: MagicFuse, tmp_path: Path) -> None:
    """Half of all pixels are cars: a label with other ids would teach another class."""
    dataset_files.mfnet(tmp_path)
    batch = to_device(crops_of(tmp_path, "mfnet")[range(2)], torch.device("cpu"))
    batch["label"][:] = 1
    model = MagicFuse(small_paper.preset)
    model.mkf.load_state_dict(small_paper.mkf.state_dict())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    bias = model.mkf.segproj[-1].bias.requires_grad_()
    mkf_loss(model, batch)["segmentation"].backward()
    assert bias.grad is not None and int(bias.grad.argmin()) == 1


def test_a_stage_command_trains_on_nine_classes(small_preset: Preset, tmp_path: Path) -> None:
    paper = load_preset("paper")
    nine = small_preset.model_copy(
        update={
            "classes": paper.classes,
            "losses": small_preset.losses.model_copy(
                update={"class_weights": paper.losses.class_weights}
            ),
        }
    )
    preset, run = write_preset(nine, tmp_path / "nine.yaml"), tmp_path / "run"
    dataset_files.mfnet(tmp_path / "mfnet")
    options = (f"--data=mfnet:{tmp_path / 'mfnet'}", "--preset", preset, "--run", run)
    code, output = train(
        "stage", "mkf", *options, "--steps=1", "--batch=2", "--workers=0", "--mixed-precision=no"
    )
    assert code == 0, output
    assert "in float32, from random weights" in " ".join(output.split())
    state = torch.load(run / "mkf" / "last.pt", weights_only=True)["ema"]
    assert state["segmentation.conv2.weight"].shape[0] == 9
    config = yaml.safe_load((run / "mkf" / "config.yaml").read_text())
    assert [c["name"] for c in config["preset"]["classes"]] == list(MFNET_CLASSES)


def test_a_preset_without_one_step_or_few_step_has_no_such_stage() -> None:
    for stage in ("one_step", "few_step"):
        code, output = train("stage", stage, "--data", "mfnet:x", "--preset", "paper")
        assert code == 2 and "'paper' has no losses.output" in output
    nano = load_preset("nano").model_copy(update={"steps": [2]})
    with pytest.raises(
        TrainingError, match=r"'one_step' trains K = 1; preset 'nano' has K = \[2\]"
    ):
        check_stage(nano, "one_step")
