"""`magicfuse-train score`: scores a bundle on held-out data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle, write_manifest
from magicfuse_ros.fuser import Fuser
from magicfuse_training.commands.options import BundleFolder, DevelopmentData
from magicfuse_training.metrics.score import score_camvid, score_msrs
from magicfuse_training.metrics.table import print_scores, write_into_card


def score_command(
    bundle: BundleFolder,
    data: DevelopmentData,
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
        "msrs_dev": score_msrs(fuser, data / "msrs", names),
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
