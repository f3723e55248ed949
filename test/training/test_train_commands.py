"""The commands that train more than a stage: make, distill, ablate."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from test_make import write_pairs, write_preset, write_recipe
from test_run_folder import write_data
from typer.testing import CliRunner

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.cli import app
from magicfuse_training.commands import ablate
from magicfuse_training.preset import Preset
from magicfuse_training.stages.ablations import ABLATIONS
from magicfuse_training.stages.stages import STAGES


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def trained(least_preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with five pairs, a preset, the run that `make` made of them, its bundle."""
    folder = tmp_path_factory.mktemp("made")
    write_pairs(folder)
    write_preset(least_preset, folder / "least.yaml")
    recipe = write_recipe(folder, [{"stage": name, "steps": 2, "batch": 2} for name in STAGES])
    # A process of its own, as users have it: its loader forks, and forks and the threads of the
    # inference libraries that other tests have loaded here do not go together.
    options = ("--data", folder, "--out", folder / "mine", "--run", folder / "run")
    command = map(str, ("make", recipe, *options))
    subprocess.run([sys.executable, "-m", "magicfuse_training.cli", *command], check=True)
    return folder


def test_five_pairs_become_a_bundle_that_runs_and_a_teacher(
    least_preset: Preset, trained: Path, tmp_path: Path
) -> None:
    bundle = Bundle.load(trained / "mine")
    assert bundle.manifest.provenance.data[0].startswith("folder, split .: 5 scenes")
    assert set(bundle.manifest.provenance.training_minutes) == {
        "autoencoder", "ikr", "ckg", "mkf", "one_step", "few_step",
    }  # fmt: skip
    frame = Fuser(bundle, select("onnxruntime"))(np.full((60, 90, 3), 40, np.uint8))
    assert frame.mag_image is not None and frame.mag_image.shape == (60, 90, 3)

    smaller = least_preset.ckg.model_copy(update={"time_channels": 4})
    student = least_preset.model_copy(update={"name": "student", "ckg": smaller})
    invoke(
        "distill", f"--data=folder:{trained / 'pairs'}", "--teacher", str(trained / "run"),
        "--teacher-preset", str(trained / "least.yaml"), "--batch", "2",
        "--preset", write_preset(student, tmp_path / "student.yaml"),
        "--run", str(tmp_path / "student"), "--steps", "2", "--workers", "0",
    )  # fmt: skip
    taught = torch.load(tmp_path / "student" / "distill" / "last.pt", weights_only=True)["ema"]
    teacher = torch.load(trained / "run" / "few_step" / "last.pt", weights_only=True)["ema"]
    assert all(torch.equal(taught[k], teacher[k]) for k in teacher if not k.startswith("ckg."))


def test_ablate_leaves_a_table_and_a_plot(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one machine and scored on another, from the phase 1 of a bundle."""
    monkeypatch.setattr(ablate, "ABLATIONS", {k: ABLATIONS[k] for k in ("full", "IV")})
    monkeypatch.setattr(ablate, "TAUS", (0.0, 1.0))
    write_data(tmp_path / "data")
    out, bundle = tmp_path / "out", str(trained / "mine")
    data = ("ablate", "--data", str(tmp_path / "data"), "--out", str(out))
    start = ("--from-bundle", bundle, "--preset", str(trained / "least.yaml"), "--only", "train")
    invoke(*data, *start, "--minutes", "0", "--batch", "2", "--workers", "0")
    assert not (out / "ablation.json").exists()
    for checkpoint in out.glob("models/*/*/last.pt"):
        checkpoint.unlink()
    invoke(*data, "--only", "score")
    result = json.loads((out / "ablation.json").read_text())
    assert set(result["models"]) == {"full", "IV"} and set(result["tau"]) == {"0.0", "1.0"}
    assert result["models"]["IV"]["mIoU clean"] is None
    assert result["models"]["full"]["mIoU clean"] is not None
    assert result["start"] == bundle and result["steps"]["full"] == {"mkf": 0}
    table = (out / "ablation.md").read_text()
    assert "| IV | semantics |" in table and "person contrast" in table
    assert cv2.imread(str(out / "ablation.png")) is not None


def test_a_stage_goes_on_from_a_bundle_in_small_steps_and_with_its_statistics(
    trained: Path, tmp_path: Path
) -> None:
    invoke(
        "stage", "mkf", f"--data=folder:{trained / 'pairs'}",
        "--from-bundle", str(trained / "mine"),
        "--preset", str(trained / "least.yaml"), "--run", str(tmp_path), "--batch", "2",
        "--steps", "2", "--workers", "0",
    )  # fmt: skip
    config = yaml.safe_load((tmp_path / "mkf" / "config.yaml").read_text())
    assert config["stage"]["optimizer"]["learning_rate"] == 4e-4
    before = torch.load(trained / "run" / "few_step" / "last.pt", weights_only=True)["ema"]
    after = torch.load(tmp_path / "mkf" / "last.pt", weights_only=True)["model"]
    statistics = [k for k in before if "running_" in k]
    assert statistics
    for key in statistics:
        torch.testing.assert_close(after[key], before[key])
    moved = {k.split(".")[0] for k in before if not torch.allclose(after[k], before[k], atol=1e-3)}
    assert moved <= {"mkf", "segmentation"}
