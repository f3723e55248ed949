"""Options that several commands take, and where a run keeps its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magicfuse_training.stages.stages import STAGES

RunFolder = Annotated[Path, typer.Option("--run", help="folder of checkpoints and logs")]
DataFolder = Annotated[Path, typer.Option("--data", help="folder that holds camvid/ and msrs/")]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="bundle folder")]


def newest_checkpoint(run: Path, before: str | None = None) -> Path | None:
    """Return the checkpoint of the last stage that has one (before a given stage), or None."""
    names = list(STAGES)
    names = names[: names.index(before)] if before else names
    paths = [run / n / "last.pt" for n in reversed(names)]
    return next((p for p in paths if p.exists()), None)
