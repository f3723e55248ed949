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
from magicfuse_training.data.crops import Batch, CropConfig, Crops
from magicfuse_training.data.scenes import Scene, load_camvid, load_msrs
from magicfuse_training.errors import PresetError, did_you_mean
from magicfuse_training.export.weights import load_weights
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.accelerator import MixedPrecision
from magicfuse_training.stages.run_folder import data_rows
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer

TRAINING = ("camvid/train", "msrs/train")
HELD_OUT = ("camvid/val", "msrs/dev")
PICTURES = 2  # of each group, on TensorBoard


def stage_command(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(STAGES)}")],
    data: DataFolder,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="time budget; the rate anneals over it")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="budget in steps: can be repeated bit by bit")
    ] = None,
    run: RunFolder = Path("runs/nano"),
    preset: str = "nano",
    from_bundle: Annotated[
        Path | None, typer.Option(help="start from a bundle's weights, not from the stage before")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="crops a step, over all processes")
    ] = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="rounds that a process takes its share of a batch in")
    ] = 1,
    mixed_precision: Annotated[
        MixedPrecision, typer.Option(help="of convolutions; fp16 for GPUs that lack bf16")
    ] = "bf16",
    workers: Annotated[int, typer.Option(min=0, help="processes that make crops")] = 1,
    seed: int = 0,
) -> None:
    """Train one stage; goes on where a killed run of the same stage stopped."""
    if name not in STAGES:
        raise typer.BadParameter(f"stage is '{name}'; expected one of {', '.join(STAGES)}")
    config = load_preset(preset)
    for key in config.training:
        if key not in STAGES:
            raise PresetError(
                f"preset '{preset}': training.{key} is unknown{did_you_mean(key, STAGES)}"
            )
    stage = STAGES[name]
    torch.manual_seed(seed)
    model = MagicFuse(config)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = "random weights"
    if from_bundle:
        load_weights(model, Bundle.load(from_bundle))
        start = str(from_bundle)
    elif newest := newest_checkpoint(run, before=name):
        model.load_state_dict(torch.load(newest, map_location="cpu", weights_only=True)["ema"])
        start = str(newest)
    trainer = Trainer(
        stage,
        model,
        run / name,
        minutes,
        steps=steps,
        accumulate=accumulate,
        mixed_precision=mixed_precision,
    )
    crops = stage.crops if batch is None else replace(stage.crops, batch=batch)
    size = config.height, config.width
    accelerator = trainer.accelerator
    if writes := accelerator.is_main_process:
        processes = f"{accelerator.num_processes} process(es) on {accelerator.device.type}"
        Console().print(f"{name} on {processes}, from {start}", soft_wrap=True)
    trainer.run(
        Crops(_groups(data, TRAINING, *size), list(stage.group_weights), crops, seed),
        workers,
        validation=_validation(_groups(data, HELD_OUT, *size), crops) if writes else None,
        data=data_rows(data / folder for folder in TRAINING),
        start=start,
    )


def _groups(data: Path, folders: tuple[str, str], height: int, width: int) -> list[list[Scene]]:
    """Load the groups that stages weight: CamVid, MSRS by day, MSRS at night."""
    camvid, msrs = (data / folder for folder in folders)
    pairs = load_msrs(msrs.parent, msrs.name, height, width)
    return [
        load_camvid(camvid.parent, camvid.name, height, width),
        [s for s in pairs if s.clean],
        [s for s in pairs if not s.clean],
    ]


def _validation(groups: list[list[Scene]], config: CropConfig) -> Batch:
    """Return the same few crops of held-out scenes every time."""
    batches = [Crops([group], [1.0], config, 0)[range(PICTURES)] for group in groups if group]
    return {k: torch.cat([b[k] for b in batches]) for k in batches[0]}
