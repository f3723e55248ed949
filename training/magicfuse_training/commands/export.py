"""`magicfuse-train export`: writes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from magicfuse_training.commands.options import RunFolder, newest_checkpoint
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.stages import STAGES


def export_command(
    out: Annotated[Path, typer.Option(help="bundle folder to write")],
    run: RunFolder = Path("runs/nano"),
    preset: str = "nano",
) -> None:
    """Export the averaged weights of a run's last stage as a bundle, checked against eager."""
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise typer.BadParameter(f"run '{run}' has no checkpoint; expected {run}/STAGE/last.pt")
    model = MagicFuse(load_preset(preset))
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    minutes = {}
    for name in STAGES:
        if (path := run / name / "last.pt").exists():
            minutes[name] = round(torch.load(path, weights_only=True)["elapsed"] / 60, 1)
    export_bundle(model, out, provenance(minutes, current_commit(Path(__file__).parent)))
    Console().print(f"{out} written from {checkpoint}")
