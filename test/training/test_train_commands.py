"""The commands that train more than a stage: all, distill, ablate."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from test_run_folder import write_data
from typer.testing import CliRunner

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.cli import app
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset


def write_preset(preset: Preset, path: Path) -> str:
    path.write_text(yaml.safe_dump(preset.model_dump(mode="json")))
    return str(path)


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_five_pairs_become_a_bundle_that_runs_and_a_teacher(
    small_preset: Preset, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for kind in ("vi", "ir"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        for i in range(5):
            image = rng.integers(90, 200, (64, 96, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "pairs" / kind / f"{i}.png"), image)
    data = f"--data=folder:{tmp_path / 'pairs'}"
    preset, run = write_preset(small_preset, tmp_path / "small.yaml"), tmp_path / "run"
    options = ("--preset", preset, "--minutes", "0.1", "--batch", "2")
    # A process of its own, as users have it: its loader forks, and forks and the threads of the
    # inference libraries that other tests have loaded here do not go together.
    command = ("all", data, "--out", str(tmp_path / "mine"), "--run", str(run), *options)
    subprocess.run([sys.executable, "-m", "magicfuse_training.cli", *command], check=True)
    bundle = Bundle.load(tmp_path / "mine")
    assert bundle.manifest.provenance.data[0].startswith("folder, split .: 5 scenes")
    assert set(bundle.manifest.provenance.training_minutes) == {
        "autoencoder", "ikr", "ckg", "mkf", "one_step", "few_step",
    }  # fmt: skip
    frame = Fuser(bundle, select("onnxruntime"))(np.full((60, 90, 3), 40, np.uint8))
    assert frame.mag_image is not None and frame.mag_image.shape == (60, 90, 3)

    smaller = small_preset.ckg.model_copy(update={"widths": [8, 8]})
    student = small_preset.model_copy(update={"name": "student", "ckg": smaller})
    invoke(
        "distill", data, "--teacher", str(run), "--teacher-preset", preset, "--batch", "2",
        "--preset", write_preset(student, tmp_path / "student.yaml"),
        "--run", str(tmp_path / "student"), "--steps", "2", "--workers", "0",
    )  # fmt: skip
    taught = torch.load(tmp_path / "student" / "distill" / "last.pt", weights_only=True)["ema"]
    teacher = torch.load(run / "few_step" / "last.pt", weights_only=True)["ema"]
    assert all(torch.equal(taught[k], teacher[k]) for k in teacher if not k.startswith("ckg."))


SHORT_ABLATION = """
import sys
from magicfuse_training.cli import app
from magicfuse_training.commands import ablate
ablate.ABLATIONS = {k: ablate.ABLATIONS[k] for k in ("full", "IV")}
ablate.TAUS = (0.0, 1.0)
app(sys.argv[1:])
"""


def test_ablate_leaves_a_table_and_a_plot(
    small_preset: Preset, exported: tuple[MagicFuse, Path], tmp_path: Path
) -> None:
    """Trained on one machine and scored on another, from the phase 1 of a bundle."""
    write_data(tmp_path / "data")
    out = tmp_path / "out"
    preset = write_preset(small_preset, tmp_path / "small.yaml")
    data = ("--data", str(tmp_path / "data"), "--out", str(out))
    command = [sys.executable, "-c", SHORT_ABLATION, "ablate", *data]
    start = ("--from-bundle", str(exported[1]), "--preset", preset)
    short = ("--minutes", "0", "--batch", "2", "--workers", "0")
    subprocess.run([*command, *start, *short, "--only", "train"], check=True)
    assert not (out / "ablation.json").exists()
    for checkpoint in out.glob("models/*/*/last.pt"):
        checkpoint.unlink()
    subprocess.run([*command, "--only", "score"], check=True)
    result = json.loads((out / "ablation.json").read_text())
    assert set(result["models"]) == {"full", "IV"} and set(result["tau"]) == {"0.0", "1.0"}
    assert result["models"]["IV"]["mIoU clean"] is None
    assert result["models"]["full"]["mIoU clean"] is not None
    assert result["start"] == str(exported[1]) and result["steps"]["full"] == {"mkf": 0}
    table = (out / "ablation.md").read_text()
    assert "| IV | semantics |" in table and "person contrast" in table
    assert cv2.imread(str(out / "ablation.png")) is not None
