# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Damaged, foreign and unwritable checkpoints and other files of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_process import small_crops

from magicfuse_training.atomic import write_atomically
from magicfuse_training.commands.runs import load_averaged, minutes_of
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages import checkpoint
from magicfuse_training.stages.checkpoint import load_checkpoint, read_checkpoint, save_atomically
from magicfuse_training.stages.run_folder import check_unchanged, read_yaml, untrained
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.start import load_bundle
from magicfuse_training.stages.trainer import Trainer


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    path = tmp_path / "whole.pt"
    save_atomically({"ema": {"a": torch.zeros(5000)}, "elapsed": 60.0}, path)
    return path.read_bytes()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("length", [0, 1, 100, 15_000])
def test_a_cut_checkpoint_is_named(tmp_path: Path, whole: bytes, length: int, mapped: bool) -> None:
    assert length < len(whole)
    path = tmp_path / "last.pt"
    path.write_bytes(whole[:length])
    with pytest.raises(
        TrainingError, match=f"'{path}' is damaged or not a checkpoint .{length} byt"
    ):
        read_checkpoint(path, mapped=mapped)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        ({"state_dict": {}}, "lacks ema; it holds state_dict"),
        ({"ema": 3}, "its ema is not a set of weights"),
    ],
)
def test_a_foreign_checkpoint_is_named(
    tmp_path: Path, small_preset: Preset, content: object, words: str
) -> None:
    path = tmp_path / "last.pt"
    torch.save(content, path)
    with pytest.raises(TrainingError, match=f"'{path}' .*{words}"):
        load_averaged(MagicFuse(small_preset), path)


def test_a_text_is_no_checkpoint_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(TrainingError, match=f"cannot read '{path}': No such file"):
        load_checkpoint(path, set())
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        load_checkpoint(path, set())
    (tmp_path / "ikr").mkdir()
    path.rename(tmp_path / "ikr" / "last.pt")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        minutes_of(tmp_path)


def test_a_checkpoint_of_another_preset_is_named(
    tmp_path: Path, small_preset: Preset, build_model: Callable[[], MagicFuse]
) -> None:
    path = tmp_path / "last.pt"
    state = build_model().state_dict()
    torch.save({"ema": {**state, "encoder.new": torch.zeros(1)}}, path)
    with pytest.raises(TrainingError, match=r"preset 'small': its encoder.new is .1,.; expected m"):
        load_averaged(MagicFuse(small_preset), path)
    name = next(iter(state))
    torch.save({"ema": {**state, name: torch.zeros(7)}}, path)
    with pytest.raises(TrainingError, match=f"its {name} is .7,.; expected"):
        load_averaged(MagicFuse(small_preset), path)


def test_a_bundle_with_other_classes_is_no_start(small_preset: Preset, tiny_bundle: Path) -> None:
    words = f"'{tiny_bundle}' has the classes road, person, sky; expected those of preset 'small'"
    with pytest.raises(TrainingError, match=words):
        load_bundle(MagicFuse(small_preset), tiny_bundle)


def test_a_full_disk_keeps_the_old_file_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "last.pt"
    save_atomically({"ema": {}}, old)
    before = old.read_bytes()
    full = tmp_path / "full.partial"
    full.symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"cannot write '.*full.pt': No space left on device"):
        save_atomically({"ema": {"a": torch.zeros(10**5)}}, tmp_path / "full.pt")

    def fail(*_: object) -> None:
        raise RuntimeError("unexpected pos 64 vs 0\nException raised from write_blob")

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(TrainingError, match=r"cannot write '.*last.pt': unexpected pos 64 vs 0$"):
        save_atomically({}, old)
    assert old.read_bytes() == before and list(tmp_path.iterdir()) == [old]
    with pytest.raises(TrainingError, match=r"cannot write '.*/no/x.yaml': No such file"):
        write_atomically("", tmp_path / "no" / "x.yaml")


def test_damaged_records_of_a_run_are_named(tmp_path: Path) -> None:
    for damage in (b"", b"a: [1", b"\xff\xfe\x00", b"- 1"):
        (tmp_path / "config.yaml").write_bytes(damage)
        with pytest.raises(TrainingError, match=r"config.yaml' is damaged"):
            read_yaml(tmp_path / "config.yaml")
        with pytest.raises(TrainingError, match=r"config.yaml' is damaged"):
            check_unchanged(tmp_path, {"a": 1}, [])
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(TrainingError, match=r"data.tsv' cannot be read"):
        check_unchanged(tmp_path, {"a": 1}, [])


def test_a_stage_that_ends_in_its_warm_up_is_untrained(
    small_preset: Preset, tmp_path: Path
) -> None:
    folder = tmp_path / "autoencoder"
    assert untrained(folder) is None
    trainer = Trainer(STAGES["autoencoder"], MagicFuse(small_preset), folder, steps=1)
    trainer.run(small_crops(), 0)
    assert untrained(folder) == (
        "stage 'autoencoder' is untrained: it did 1 steps, and its learning rate rises over the "
        "first 100; give it a larger budget"
    )
    state = torch.load(folder / "last.pt", weights_only=True)
    torch.save({**state, "step": 100}, folder / "last.pt")
    assert untrained(folder) is None
    none = Trainer(STAGES["autoencoder"], MagicFuse(small_preset), tmp_path / "none", steps=0)
    none.run(small_crops(), 0)
    assert untrained(tmp_path / "none") is None, "nothing was meant to be trained"
