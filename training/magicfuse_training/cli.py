"""`magicfuse-train`: the stages, what a model costs, export and scores.

magicfuse-train stage autoencoder --data DATA --minutes 10     then ikr, ckg, mkf, few_step
magicfuse-train export --run runs/nano --out engines/nano
magicfuse-train score --bundle engines/nano --data DATA --record
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle, write_manifest
from magicfuse_ros.fuser import Fuser
from magicfuse_training.data.crops import CropConfig, Crops
from magicfuse_training.data.scenes import load_camvid, load_msrs
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.export.weights import load_weights
from magicfuse_training.metrics.score import score_camvid, score_msrs
from magicfuse_training.metrics.table import print_scores, write_into_card
from magicfuse_training.networks.cost import gflop_per_call, parameters
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
RunFolder = Annotated[Path, typer.Option("--run", help="folder of checkpoints and logs")]
DataFolder = Annotated[Path, typer.Option("--data", help="folder that holds camvid/ and msrs/")]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="bundle folder")]


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(STAGES)}")],
    data: DataFolder,
    minutes: Annotated[float, typer.Option(min=0, help="time budget; the rate anneals over it")],
    run: RunFolder = Path("runs/nano"),
    preset: str = "nano",
    from_bundle: Annotated[
        Path | None, typer.Option(help="start from a bundle's weights, not from the stage before")
    ] = None,
    batch: int = 12,
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
    trainer.run(Crops(groups, weights, CropConfig(batch=batch), seed + 1000 * trainer.step))


def newest_checkpoint(run: Path, before: str | None = None) -> Path | None:
    """Return the checkpoint of the last stage that has one (before a given stage), or None."""
    names = list(STAGES)
    names = names[: names.index(before)] if before else names
    paths = [run / n / "last.pt" for n in reversed(names)]
    return next((p for p in paths if p.exists()), None)


@app.command()
def cost(preset: str = "nano") -> None:
    """Print the parameters and the GFLOP of every network, and of a frame for each trained K."""
    config = load_preset(preset)
    model = MagicFuse(config).eval()
    calls = gflop_per_call(model)
    table = Table("network", "parameters", "GFLOP a call", title=f"preset {config.name}")
    for name, gflop in calls.items():
        table.add_row(name, f"{parameters(model.get_submodule(name)):,}", f"{gflop:.2f}")
    table.add_section()
    for k in config.steps:
        frame = sum(g * (k if n in ("ikr", "ckg", "mkf") else 1) for n, g in calls.items())
        shipped = " (default)" if k == config.default_steps else ""
        table.add_row(f"frame, K = {k}{shipped}", f"{parameters(model):,}", f"{frame:.2f}")
    Console().print(table)
    Console().print(
        "A frame is MagImg and the mask; each further decoded image is one decoder call."
    )


@app.command()
def export(
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


@app.command()
def score(
    bundle: BundleFolder,
    data: DataFolder,
    backend: str = "auto",
    steps: Annotated[int | None, typer.Option(help="K; default: the bundle's")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the scores here")] = None,
    record: Annotated[
        bool, typer.Option(help="write them into bundle.json and MODEL_CARD.md")
    ] = False,
) -> None:
    """Score a bundle on CamVid val and MSRS dev through the vehicle's own runtime."""
    loaded = Bundle.load(bundle)
    fuser = Fuser(loaded, select(backend), steps=steps)
    names = [c.name for c in loaded.manifest.classes]
    scores: dict[str, Any] = {
        "bundle": loaded.manifest.name,
        "fingerprint": loaded.fingerprint,
        "steps": fuser.steps,
        "camvid_val": score_camvid(fuser, data / "camvid", names),
        "msrs_dev": score_msrs(fuser, data / "msrs"),
    }
    print_scores(scores)
    if json_file:
        partial = json_file.with_suffix(".partial")
        partial.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, json_file)
    if record:
        old = loaded.manifest
        new = old.provenance.model_copy(update={"scores": scores})
        write_manifest(loaded.root, old.model_copy(update={"provenance": new}))
        write_into_card(scores, loaded.root / "MODEL_CARD.md")


if __name__ == "__main__":
    app()
