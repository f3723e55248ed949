"""`magicfuse-train evaluate`: reports all scores of a bundle next to other methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from magicfuse_ros.backends import select
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.command_line import INTERRUPTED, output_console
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.output_files import make_folder, write_text
from magicfuse_training.commands.options import BundleFolder, Data
from magicfuse_training.commands.score import no_scores
from magicfuse_training.data.mix import Source
from magicfuse_training.metrics.evaluation import (
    Evaluated,
    evaluate_set,
    files_of_peers,
    write_inputs,
)
from magicfuse_training.metrics.peers import Peer
from magicfuse_training.metrics.report import as_html, as_markdown
from magicfuse_training.metrics.rows import OWN
from magicfuse_training.metrics.score import as_json, open_sets

NAME = "evaluation"  # base name of the report's files


def evaluate_command(
    bundle: BundleFolder,
    data: Data,
    out: Annotated[Path, typer.Option(help="folder for the report: JSON, Markdown and HTML")],
    fused: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR, may be repeated: fused images of another method, as "
            "DIR/[SET/]CONDITION/FRAME.png, those of frames as they are also without CONDITION"
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="write the frames as they are fused here, for other methods, and stop"),
    ] = None,
    backend: str = "auto",
    precision: Annotated[Precision, typer.Option(help="of the networks' arithmetic")] = "fp32",
    steps: Annotated[int | None, typer.Option(help="K; default: the bundle's")] = None,
    every: Annotated[int, typer.Option(min=1, help="take every n-th frame")] = 1,
) -> None:
    """Evaluate a bundle on held-out data next to other methods: JSON, Markdown and one HTML page.

    Each set is evaluated on its split val, dev or test: day frames clean, dark, hazy, in rain and
    noisy, night frames as they are. `score` is the short form, for a model card.

    The report is rewritten after every set. Ctrl-C keeps the report of the finished sets; the exit
    code is then 130.
    """
    peers: list[Peer] = []
    for text in fused or []:
        peers.append(Peer.parse(text, [*OWN, *[peer.name for peer in peers]]))
    loaded = Bundle.load(bundle)
    names = [c.name for c in loaded.manifest.classes]
    sets = open_sets([Source.parse(text) for text in data], names, every)
    console = output_console()
    if inputs:
        make_folder(inputs)
        count = sum(write_inputs(frames, name, inputs) for name, frames in sets.items())
        console.print(Text(f"{count} inputs in {inputs}"), soft_wrap=True)
        return
    files = files_of_peers(peers, sets)
    make_folder(out)
    fuser = Fuser(loaded, select(backend, precision=precision), steps=steps)
    scores = no_scores(loaded, fuser, backend, precision, every)
    done: dict[str, Evaluated] = {}
    try:
        for name, frames in sets.items():
            done[name] = evaluate_set(fuser, loaded, frames, name, files[name])
            scores["sets"][name] = done[name].scores
            _write(scores, done, out)
    except KeyboardInterrupt:
        line = f"interrupted: {len(done)} of {len(sets)} sets are evaluated"
        console.print(Text(line, "red"), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    console.print(Text(f"report: {out / NAME}.html, .md, .json"), soft_wrap=True)


def _write(scores: dict[str, Any], done: Mapping[str, Evaluated], out: Path) -> None:
    write_text(out / f"{NAME}.json", json.dumps(as_json(scores), indent=2) + "\n")
    write_text(out / f"{NAME}.md", as_markdown(scores))
    write_text(out / f"{NAME}.html", as_html(scores, done))
