"""`magicfuse-train all`: from a data set to a bundle, through every stage, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from magicfuse_training.commands.options import (
    Data,
    DeviceCropsOption,
    RunFolder,
    load_averaged,
    minutes_of,
    newest_checkpoint,
)
from magicfuse_training.commands.stage import check_training
from magicfuse_training.data.mix import Source, describe, load_groups
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.runner import Budget, train_stage
from magicfuse_training.stages.stages import STAGES

# The last two stages train all networks on what comes out in the end: they get most of the time.
SHARES = {
    "autoencoder": 0.07,
    "ikr": 0.05,
    "ckg": 0.05,
    "mkf": 0.05,
    "one_step": 0.48,
    "few_step": 0.3,
}
PHASES = ("autoencoder", "ikr", "ckg", "mkf")  # 1 and 2


def all_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="bundle folder to write")],
    minutes: Annotated[float, typer.Option(min=0.1, help="budget of all stages together")] = 180,
    run: RunFolder = Path("runs/nano"),
    preset: str = "nano",
    batch: Annotated[int | None, typer.Option(min=1, help="crops a step")] = None,
    device_crops: DeviceCropsOption = False,
    seed: int = 0,
) -> None:
    """Train every stage in turn and export the bundle; goes on where a killed run stopped."""
    sources = [Source.parse(text) for text in data]
    config = load_preset(preset)
    check_training(config, preset)
    groups = load_groups(sources, config.height, config.width, [c.name for c in config.classes])
    for name, share in shares_of(config).items():
        torch.manual_seed(seed)
        model = MagicFuse(config)
        start = "random weights"
        if newest := newest_checkpoint(run, before=name):
            load_averaged(model, newest)
            start = str(newest)
        budget = Budget(minutes * share, batch=batch, device_crops=device_crops, seed=seed)
        model = train_stage(STAGES[name], model, run / name, sources, budget, start, groups)
    trained = describe(sources)
    commit = current_commit(Path(__file__).parent)
    export_bundle(model, out, provenance(minutes_of(run), commit, trained.data, trained.terms))
    Console().print(f"{out} written; try: magicfuse run IMAGE --bundle {out} --out result")


def shares_of(preset: Preset) -> dict[str, float]:
    """Return the share of the budget of every stage that a preset is trained in.

    One without K = 1, as `paper`, is trained in the paper's two phases alone.
    """
    shares = {n: s for n, s in SHARES.items() if 1 in preset.steps or n in PHASES}
    return {name: share / sum(shares.values()) for name, share in shares.items()}
