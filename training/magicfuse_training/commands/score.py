"""`magicfuse-train score`: scores a bundle on held-out data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from magicfuse_ros.backends import choose, select
from magicfuse_ros.bundle import Bundle, write_manifest
from magicfuse_ros.engine_cache import Precision
from magicfuse_ros.fuser import Fuser
from magicfuse_training.commands.options import BundleFolder, Data
from magicfuse_training.data.mix import Source
from magicfuse_training.metrics.bootstrap import PERCENT, RESAMPLES
from magicfuse_training.metrics.score import as_json, score_sets, without_details
from magicfuse_training.metrics.table import print_scores, read_card, write_into_card


def score_command(
    bundle: BundleFolder,
    data: Data,
    backend: str = "auto",
    precision: Annotated[Precision, typer.Option(help="of the networks' arithmetic")] = "fp32",
    steps: Annotated[int | None, typer.Option(help="K; default: the bundle's")] = None,
    every: Annotated[int, typer.Option(min=1, help="score every n-th frame")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the scores here")] = None,
    record: Annotated[
        bool, typer.Option(help="write them into bundle.json and MODEL_CARD.md")
    ] = False,
) -> None:
    """Score a bundle on held-out data through the vehicle's own runtime.

    Each set is scored on its split val, dev or test, by day clean, dark and hazy, and by night: all
    that its labels, boxes and thermal images allow.
    """
    loaded = Bundle.load(bundle)
    sources = [Source.parse(text) for text in data]
    card = loaded.root / "MODEL_CARD.md"
    if record:
        read_card(card)  # better now than after minutes
    fuser = Fuser(loaded, select(backend, precision=precision), steps=steps)
    names = [c.name for c in loaded.manifest.classes]
    scores: dict[str, Any] = {
        "bundle": loaded.manifest.name,
        "fingerprint": loaded.fingerprint,
        "backend": choose(backend, precision).used,
        "precision": precision,
        "steps": fuser.steps,
        "tau": fuser.tau,
        "every": every,
        "intervals": f"[value, low, high]: percentiles {PERCENT[0]} and {PERCENT[1]} of "
        f"{RESAMPLES} resamples of frames",
        "sets": score_sets(fuser, names, sources, every),
    }
    print_scores(scores)
    if json_file:
        partial = json_file.with_suffix(".partial")
        partial.write_text(json.dumps(as_json(scores), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, json_file)
    if record:
        old = loaded.manifest
        short = as_json(without_details(scores))
        new = old.provenance.model_copy(update={"scores": short})
        write_into_card(scores, card)
        write_manifest(loaded.root, old.model_copy(update={"provenance": new}))
