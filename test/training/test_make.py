# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train make`: recipes, and the runs and bundles that they make."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from dataset_files import picture
from training_process import start_two_of

from cli_run import train
from magicfuse_ros.bundle import Provenance
from magicfuse_training.commands import make
from magicfuse_training.data.mix import Groups
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.start import write_bundle_of_commit


def write_pairs(folder: Path) -> None:
    """Write five pairs of visible and thermal images into folder/pairs."""
    rng = np.random.default_rng(0)
    for kind in ("vi", "ir"):
        for i in range(5):
            image = rng.integers(90, 200, (64, 96, 3), np.uint8)
            picture(folder / "pairs" / kind / f"{i}.png", image if kind == "vi" else image[..., 0])


def write_preset(preset: Preset, path: Path) -> Path:
    path.write_text(yaml.safe_dump(preset.model_dump(mode="json")))
    return path


def write_recipe(folder: Path, stages: list[dict[str, Any]], **others: Any) -> Path:
    """Write a recipe for the pairs and the preset `least.yaml` of the same folder."""
    path = folder / "recipe.yaml"
    values = {"preset": "least.yaml", "data": ["folder:pairs"], "stages": stages} | others
    path.write_text(yaml.safe_dump(values))
    return path


def steps(count: int, stage: str, **others: Any) -> dict[str, Any]:
    return {"stage": stage, "steps": count, "batch": 2, **others}


@pytest.fixture
def folder(least_preset: Preset, tmp_path: Path) -> Path:
    """Return a folder with pairs and a preset."""
    write_pairs(tmp_path)
    write_preset(least_preset, tmp_path / "least.yaml")
    return tmp_path


Exports = list[tuple[dict[str, torch.Tensor], Path, Provenance]]


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Exports:
    """Return a list that records the exports; nothing is written, because that takes seconds."""
    seen: Exports = []

    def record(model: MagicFuse, folder: Path, made: Provenance) -> None:
        seen.append((model.state_dict(), folder, made))

    monkeypatch.setattr(make, "export_bundle", record)
    return seen


def follow(recipe: Path, *options: str) -> tuple[int, str]:
    """Run the command on a recipe beside its data; return its exit code and its output."""
    folder = recipe.parent
    paths = ("--data", folder, "--run", folder / "run", "--out", folder / "made")
    return train("make", recipe, *paths, "--workers", "0", *options)


def state_of(folder: Path, stage: str) -> dict[str, Any]:
    """Return the checkpoint of a stage."""
    state: dict[str, Any] = torch.load(folder / "run" / stage / "last.pt", weights_only=True)
    return state


def test_a_missing_recipe_and_data_of_an_unknown_kind_are_named(folder: Path) -> None:
    assert "cannot be read: No such file" in follow(folder / "none.yaml")[1]
    code, output = follow(write_recipe(folder, [steps(0, "mkf")], data=["foldr:pairs"]))
    assert code == 2 and "foldr" in output


def test_a_folder_of_something_else_is_left_alone(folder: Path) -> None:
    kept = folder / "run" / "start" / "mine.txt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    code, output = follow(write_recipe(folder, [steps(1, "few_step")]))
    assert code == 2 and "is not of a recipe's run; use another --run" in output
    assert kept.exists()


def test_the_mean_of_stages_is_weighted(folder: Path, exports: Exports) -> None:
    average = {"stages": ["autoencoder", "again"], "weights": [1, 3]}
    stages = [steps(1, "autoencoder"), steps(1, "autoencoder", name="again", seed=1)]
    assert follow(write_recipe(folder, stages, average=average))[0] == 0
    first, second = state_of(folder, "autoencoder")["ema"], state_of(folder, "again")["ema"]
    ((mean, _, _),) = exports
    assert any(not torch.equal(first[k], second[k]) for k in mean)
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * first[name] + 0.75 * second[name])
        else:
            assert torch.equal(value, second[name])


def test_scale_is_of_all_budgets_and_a_run_keeps_its_own(folder: Path, exports: Exports) -> None:
    rate = {"optimizer": {"kind": "adamw", "learning_rate": 5e-5}}
    night = {"class_weights_at_night": [0.5 * i for i in range(11)]}
    ckg = {"stage": "ckg", "minutes": 0.0002, "batch": 2, "crop": [64, 96], **night}
    stages = [steps(4, "autoencoder", **rate), ckg]
    recipe = write_recipe(folder, stages)
    assert follow(recipe, "--scale", "0.5")[0] == 0
    assert state_of(folder, "autoencoder")["step"] == 2
    config = yaml.safe_load((folder / "run" / "autoencoder" / "config.yaml").read_text())
    assert config["stage"]["optimizer"]["learning_rate"] == 5e-5
    assert config["preset"]["losses"]["class_weights_at_night"] is None
    config = yaml.safe_load((folder / "run" / "ckg" / "config.yaml").read_text())
    assert config["budget"]["minutes"] == pytest.approx(0.0001)
    assert config["stage"]["optimizer"]["learning_rate"] == 2e-3
    crops = config["stage"]["crops"]
    assert (crops["height"], crops["width"]) == (64, 96)
    assert config["preset"]["losses"]["class_weights_at_night"] == [0.5 * i for i in range(11)]
    recipe_of = exports[0][2].recipe
    assert recipe_of is not None and recipe_of.endswith(", budgets x 0.5")

    code, output = follow(recipe)
    assert code == 2 and "was started with stages.0.steps 2, and now has 4" in output
    recipe = write_recipe(folder, [*stages, steps(2, "ikr")])
    assert follow(recipe, "--scale", "0.5")[0] == 0
    assert state_of(folder, "ikr")["step"] == 1
    (folder / "run" / "recipe.yaml").unlink()
    assert "holds stages of no recipe" in follow(recipe, "--scale", "0.5")[1]


def test_the_temperature_is_fitted_to_the_model_that_is_exported(
    folder: Path, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(folder, [steps(0, "mkf")], temperature=True)
    code, output = follow(recipe)
    assert code == 2 and "needs frames with labels for half of their pixels" in output
    assert not exports and not (folder / "run" / "mkf").exists(), "it fails before it trains"

    def fit(model: MagicFuse, groups: Groups) -> float:
        assert sum(len(group.scenes) for group in groups) == 5
        model.segmentation.temperature.fill_(0.8)
        return 0.8

    monkeypatch.setattr(make, "check_fit", lambda *_: None)
    monkeypatch.setattr(make, "fit_temperature", fit)
    assert "temperature of the confidence: 0.80" in follow(recipe)[1]
    assert exports[0][0]["segmentation.temperature"] == torch.tensor([0.8])


def test_int8_graphs_are_made_of_the_run_s_bundle(
    folder: Path, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle folder is written last, by the step that completes it."""
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(make, "quantize_command", lambda *given: asked.append(given))
    monkeypatch.setattr(make, "check_frames", lambda data: None)
    recipe = write_recipe(folder, [steps(0, "mkf")], int8={"minimum_db": 33})
    monkeypatch.setattr(make, "find_spec", lambda name: None)
    code, output = follow(recipe)
    assert code == 2 and "int8 needs nncf" in output and not (folder / "run").exists()
    monkeypatch.setattr(make, "find_spec", lambda name: object())
    assert follow(recipe)[0] == 0
    assert exports[0][1] == folder / "run" / "bundle"
    assert asked == [(folder / "run" / "bundle", folder, folder / "made", 33.0)]


def test_what_keeps_the_bundle_of_a_commit_away_is_named(
    git: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="not a git repository"):
        write_bundle_of_commit("0" * 40, "engines/small", tmp_path, tmp_path / "start")
    (tmp_path / "engines" / "small" / "deeper").mkdir(parents=True)
    for name in ("a.onnx", "deeper/b.onnx"):
        (tmp_path / "engines" / "small" / name).write_text(name)
    git("init", "-q")
    git("add", "engines")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    git("commit", "-qm", "two", "--allow-empty")
    git("clone", "-q", "--depth", "1", f"file://{tmp_path}", tmp_path / "shallow")

    def write(commit: str, bundle: str, inside: Path = tmp_path / "engines") -> None:
        write_bundle_of_commit(commit, bundle, inside, tmp_path / "start")

    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "of_another_bundle").touch()
    write(commit, "engines/small/")
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["a.onnx"]
    with pytest.raises(TrainingError, match=f"commit {'0' * 40} is not in the clone .*git fetch$"):
        write("0" * 40, "engines/small")
    with pytest.raises(TrainingError, match="it is shallow: git fetch --unshallow"):
        write(commit, "engines/small", tmp_path / "shallow")
    with pytest.raises(TrainingError, match=f"commit {commit} of .* has no bundle 'engines/large'"):
        write(commit, "engines/large")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TrainingError, match="needs git, which is not installed"):
        write(commit, "engines/small")


def make_and_count(recipe: Path) -> None:
    """Follow a recipe; record every export in a file instead of doing it."""

    def note(*_: object) -> None:
        with (recipe.parent / "exports").open("a") as file:
            file.write("x")

    make.export_bundle = note
    torch.set_num_threads(1)
    code, output = follow(recipe)
    assert code == 0, output


def test_two_processes_export_once(folder: Path) -> None:
    for process in start_two_of(make_and_count, write_recipe(folder, [steps(1, "autoencoder")])):
        process.join(120)
        assert process.exitcode == 0
    assert (folder / "exports").read_text() == "x"
    assert (folder / "run" / "recipe.yaml").is_file() and state_of(folder, "autoencoder")


def test_what_would_fail_at_the_end_fails_before_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "find_spec", lambda name: object())
    monkeypatch.setattr(make, "train_stage", lambda *_: pytest.fail("it began"))
    recipe = write_recipe(folder, [steps(1, "mkf")], int8={"minimum_db": 33})
    code, output = follow(recipe)
    assert code == 2 and f"'{folder}/camvid/train/vi' holds no *.jpg" in output
    (folder / "made").touch()
    code, output = follow(write_recipe(folder, [steps(1, "mkf")]))
    assert code == 2 and "made' is a file" in output
    stage = steps(1, "mkf", class_weights_at_night=[1.0, 2.0])
    code, output = follow(write_recipe(folder, [stage]))
    assert code == 2 and "class_weights_at_night of stage mkf has 2 values; expected one" in output
    assert not (folder / "run").exists()


def test_a_bundle_of_a_rehearsal_is_called_untrained(folder: Path, exports: Exports) -> None:
    code, output = follow(write_recipe(folder, [steps(1, "autoencoder")]))
    assert code == 0 and "stage 'autoencoder' is untrained: it did 1 steps" in output
    assert "the bundle is untrained: autoencoder ended in the warm-up" in output
    (folder / "made").mkdir()
    for name in ("bundle.json", "MODEL_CARD.md"):
        (folder / "made" / name).touch()
    assert "replaces the bundle in" in follow(write_recipe(folder, [steps(1, "autoencoder")]))[1]


def test_a_damaged_recipe_is_named(folder: Path) -> None:
    recipe = write_recipe(folder, [steps(0, "mkf")])
    whole = recipe.read_text()
    for damage in (b"", whole[:40].encode(), b"\xff\xfe\x00", b"\x89PNG\r\n\x00"):
        recipe.write_bytes(damage)
        code, output = follow(recipe)
        assert code == 2 and output.startswith(f"error: recipe '{recipe}'"), output
    recipe.write_bytes(whole.encode("utf-16"))
    (folder / "pairs" / "vi").rename(folder / "pairs" / "visible")
    assert "holds no folder 'vi' with pictures" in follow(recipe)[1]  # it is readable
