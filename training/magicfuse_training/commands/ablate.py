"""`magicfuse-train ablate`: what each part of the method is worth, as a table and a plot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.commands.options import DevelopmentData, RunFolder, load_averaged
from magicfuse_training.data.mix import Source, describe, load_groups
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.metrics.ablation import draw_plot, write_table
from magicfuse_training.metrics.fusion import score_fusion
from magicfuse_training.metrics.score import score_camvid
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.ablations import ABLATIONS, Ablation
from magicfuse_training.stages.runner import Budget, train_stage
from magicfuse_training.stages.stage import Stage
from magicfuse_training.stages.stages import STAGES

TAUS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def ablate_command(
    data: DevelopmentData,
    out: Annotated[Path, typer.Option(help="folder for the bundles, the table and the plot")],
    run: RunFolder = Path("runs/nano"),
    preset: str = "nano",
    minutes: Annotated[float, typer.Option(min=0, help="of each stage of each model")] = 10,
    every: Annotated[int, typer.Option(min=1, help="score every n-th frame")] = 1,
    seed: int = 0,
) -> None:
    """Train phase 2 of every ablated model from a run's phase 1, score all, sweep tau."""
    start = run / "ckg" / "last.pt"
    if not start.is_file():
        raise typer.BadParameter(f"run '{run}' has no phase 1; expected {start}")
    config = load_preset(preset)
    sources = [Source(f"{name}-repacked", data / name) for name in ("camvid", "msrs")]
    groups = load_groups(sources, config.height, config.width, [c.name for c in config.classes])
    trained = describe(sources)
    models: dict[str, MagicFuse] = {}
    for name, ablation in ABLATIONS.items():
        model = _build(ablation, config, start, seed)
        for stage in _stages(ablation):
            folder = out / "models" / name / stage.name
            budget = Budget(minutes, seed=seed)
            model = train_stage(stage, model, folder, sources, budget, str(start), groups)
        models[name] = model
    # Only now: loaders fork, which inference libraries with their threads do not survive.
    commit = current_commit(Path(__file__).parent)
    rows: dict[str, Any] = {}
    for name, ablation in ABLATIONS.items():
        spent = {stage.name: minutes for stage in _stages(ablation)}
        made = provenance(spent, commit, trained.data, trained.terms)
        bundle = out / "models" / name / "bundle"
        export_bundle(models[name], bundle, made)
        scores = _score(bundle, data, every, None, ablation.semantics)
        rows[name] = {"what": ablation.what} | scores
    sweep = {
        str(tau): _score(out / "models" / "full" / "bundle", data, every, tau, True) for tau in TAUS
    }
    result = {"preset": preset, "minutes": minutes, "every": every, "models": rows, "tau": sweep}
    (out / "ablation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    write_table(result, out / "ablation.md")
    draw_plot(result, out / "ablation.png")
    Console().print((out / "ablation.md").read_text(encoding="utf-8"), markup=False)


def _stages(ablation: Ablation) -> list[Stage]:
    """Return the stages that a variant is trained in, with its own losses."""
    stages = [replace(STAGES["mkf"], loss=ablation.mkf)]
    if ablation.ikr is not ABLATIONS["full"].ikr:
        stages.insert(0, replace(STAGES["ikr"], loss=ablation.ikr))
    return stages


def _build(ablation: Ablation, preset: Preset, start: Path, seed: int) -> MagicFuse:
    torch.manual_seed(seed)
    tau = preset.tau if ablation.tau is None else ablation.tau
    model = ablation.model(preset.model_copy(update={"tau": tau}))
    load_averaged(model, start)
    return model


def _score(
    bundle: Path, data: Path, every: int, tau: float | None, semantics: bool
) -> dict[str, float | None]:
    """Score MagImg on MSRS dev, and the masks on CamVid val."""
    loaded = Bundle.load(bundle)
    fuser = Fuser(loaded, select("auto"), tau=tau)
    folder = data / "msrs" / "dev"
    stems = [p.stem for p in sorted((folder / "vi").glob("*.jpg"))][::every]
    scores: dict[str, float | None] = dict(score_fusion(fuser, folder, stems))
    for kind in ("clean", "dark"):
        scores[f"mIoU {kind}"] = None
    if semantics:
        names = [c.name for c in loaded.manifest.classes]
        camvid = score_camvid(fuser, data / "camvid", names, every=every)
        scores |= {f"mIoU {kind}": camvid[kind]["miou_percent"] for kind in ("clean", "dark")}
    return scores
