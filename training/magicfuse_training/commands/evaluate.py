# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train evaluate`: reports all scores of a bundle next to other methods."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.command_line import INTERRUPTED
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.output_files import make_folder, write_text
from magicfuse_training.commands import options
from magicfuse_training.commands.score import no_scores
from magicfuse_training.console import say
from magicfuse_training.data.mix import Source
from magicfuse_training.metrics.evaluation import (
    Evaluated,
    evaluate_set,
    files_of_peers,
    write_inputs,
)
from magicfuse_training.metrics.pages import check_page, write_page, write_pictures
from magicfuse_training.metrics.peers import Peer
from magicfuse_training.metrics.report import END, START, TITLE, as_html, as_markdown, set_plots
from magicfuse_training.metrics.rows import OWN
from magicfuse_training.metrics.score import as_json, open_sets

NAME = "evaluation"  # base name of the report's files


def evaluate_command(
    bundle: options.BundleFolder,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="folder for the report: JSON, Markdown and HTML")],
    fused: Annotated[
        list[str] | None,
        typer.Option(
            help="fused images of another method as NAME=DIR, may be repeated; files are "
            "DIR/[SET/]CONDITION/FRAME.png; CONDITION may be omitted for undegraded frames; use "
            "the same --every as for --inputs"
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="only write the frames that are fused here, as inputs for other methods"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            help="also write tables and plots, but no frames, into the marked section of this "
            "Markdown page; the plots lie beside it"
        ),
    ] = None,
    backend: str = "auto",
    precision: options.NetworkPrecision = "fp32",
    steps: options.SamplingSteps = None,
    every: options.Every = 1,
) -> None:
    """Evaluate a bundle on held-out data next to other methods: JSON, Markdown and one HTML page.

    Each set is evaluated on its split val, dev or test: day frames clean, dark, hazy, in rain and
    noisy, night frames as they are. `score` is the short form, for a model card.

    The report is rewritten after every set. Ctrl-C keeps the report of finished sets, and leaves
    the page as it was; the exit code is then 130.
    """
    peers: list[Peer] = []
    for text in fused or []:
        peers.append(Peer.parse(text, [*OWN, *[peer.name for peer in peers]]))
    loaded = Bundle.load(bundle)
    names = [c.name for c in loaded.manifest.classes]
    trained = loaded.manifest.provenance.data
    sets = open_sets([Source.parse(text) for text in data], names, every, trained)
    if inputs:
        make_folder(inputs)
        count = sum(write_inputs(frames, name, inputs) for name, frames in sets.items())
        say(f"{count} inputs in {inputs}")
        return
    files = files_of_peers(peers, sets)
    make_folder(out)
    if page:
        check_page(page, START, END)
    fuser = Fuser(loaded, select(backend, precision=precision), steps=steps)
    scores = no_scores(loaded, fuser, backend, precision, every)
    done: dict[str, Evaluated] = {}
    plots: dict[str, dict[str, bytes]] = {}
    try:
        for name, frames in sets.items():
            done[name] = evaluate_set(fuser, loaded, frames, name, files[name])
            scores["sets"][name] = done[name].scores
            plots[name] = set_plots(scores["sets"][name])
            write_text(out / f"{NAME}.json", json.dumps(as_json(scores), indent=2) + "\n")
            write_text(out / f"{NAME}.md", f"# {TITLE}\n\n{as_markdown(scores, {})}\n")
            write_text(out / f"{NAME}.html", as_html(scores, done, plots))
    except KeyboardInterrupt:
        say(f"interrupted: {len(done)} of {len(sets)} sets are evaluated", "red")
        raise typer.Exit(INTERRUPTED) from None
    if page:
        _write_page(scores, plots, page)
    say(f"report: {out / NAME}.html, .md, .json")


def _write_page(
    scores: dict[str, Any], plots: Mapping[str, Mapping[str, bytes]], page: Path
) -> None:
    pictures: dict[str, dict[str, str]] = {}
    places: set[str] = set()
    for name, some in plots.items():
        place = re.sub(r"\W+", "_", name)
        if place in places:
            place += f"_{len(places) + 1}"
        places.add(place)
        files = write_pictures(page, {f"{place}_{key}": plot for key, plot in some.items()})
        pictures[name] = dict(zip(some, files.values(), strict=True))
    write_page(page, START, END, as_markdown(scores, pictures))
