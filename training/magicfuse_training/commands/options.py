"""Options that several commands take, and where a run keeps its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from magicfuse_training.data.datasets import DATASETS
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.stages.stages import STAGES

RunFolder = Annotated[Path, typer.Option("--run", help="folder of checkpoints and logs")]
Data = Annotated[
    list[str],
    typer.Option(
        "--data", help=f"KIND:ROOT, may be repeated; KIND is one of {', '.join(DATASETS)}"
    ),
]
DevelopmentData = Annotated[
    Path, typer.Option("--data", help="folder that holds repacked camvid/ and msrs/")
]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="bundle folder")]
DeviceCropsOption = Annotated[
    bool,
    typer.Option("--device-crops", help="the GPU makes the crops; its memory holds all scenes"),
]
ORDER = (*STAGES, "distill")


def newest_checkpoint(run: Path, before: str | None = None) -> Path | None:
    """Return the checkpoint of the last stage that has one (before a given stage), or None."""
    names = ORDER[: ORDER.index(before)] if before else ORDER
    paths = [run / n / "last.pt" for n in reversed(names)]
    return next((p for p in paths if p.exists()), None)


def load_averaged(model: MagicFuse, checkpoint: Path) -> None:
    """Load a checkpoint's averaged weights."""
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["ema"])


def minutes_of(run: Path, names: Sequence[str] = ORDER) -> dict[str, float]:
    """Return how long each stage of a run was trained, of those named."""
    paths = {name: run / name / "last.pt" for name in names}
    return {
        name: round(torch.load(path, map_location="cpu", weights_only=True)["elapsed"] / 60, 1)
        for name, path in paths.items()
        if path.exists()
    }
