"""`magicfuse-train stage`: trains one stage of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from magicfuse_ros.bundle import Bundle
from magicfuse_training.commands.options import DataFolder, RunFolder, newest_checkpoint
from magicfuse_training.data.crops import Crops
from magicfuse_training.data.scenes import load_camvid, load_msrs
from magicfuse_training.export.weights import load_weights
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer


def stage_command(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(STAGES)}")],
    data: DataFolder,
    minutes: Annotated[float, typer.Option(min=0, help="time budget; the rate anneals over it")],
    run: RunFolder = Path("runs/nano"),
    preset: str = "nano",
    from_bundle: Annotated[
        Path | None, typer.Option(help="start from a bundle's weights, not from the stage before")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="crops a step")] = None,
    seed: int = 0,
) -> None:
    """Train one stage; goes on where a killed run of the same stage stopped."""
    if name not in STAGES:
        raise typer.BadParameter(f"stage is '{name}'; expected one of {', '.join(STAGES)}")
    torch.manual_seed(seed)
    config = load_preset(preset)
    model = MagicFuse(config)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if from_bundle:
        load_weights(model, Bundle.load(from_bundle))
    elif newest := newest_checkpoint(run, before=name):
        model.load_state_dict(torch.load(newest, weights_only=True)["ema"])
        Console().print(f"starts from {newest}")
    trainer = Trainer(STAGES[name], model, run / name, minutes)
    size = config.height, config.width
    msrs = load_msrs(data / "msrs", "train", *size)
    groups = [
        load_camvid(data / "camvid", "train", *size),
        [s for s in msrs if s.clean],
        [s for s in msrs if not s.clean],
    ]
    weights = list(STAGES[name].group_weights)
    # A resumed run must not see the same crops again: the step it resumes from is part of the seed.
    crops = STAGES[name].crops if batch is None else replace(STAGES[name].crops, batch=batch)
    trainer.run(Crops(groups, weights, crops, seed + 1000 * trainer.step))
