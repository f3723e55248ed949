# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train score`: scores a bundle on held-out data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from magicfuse_ros.backends import choose, select
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.bundle import MANIFEST, Bundle, write_manifest
from magicfuse_ros.command_line import INTERRUPTED
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.output_files import check_file, write_text
from magicfuse_training.commands import options
from magicfuse_training.console import say
from magicfuse_training.data.mix import Source
from magicfuse_training.metrics.bootstrap import PERCENT, RESAMPLES
from magicfuse_training.metrics.score import (
    as_json,
    open_sets,
    score_set,
    short_suite,
    without_details,
)
from magicfuse_training.metrics.table import print_scores, read_card, write_into_card


def score_command(
    bundle: options.BundleFolder,
    data: options.Data,
    backend: str = "auto",
    precision: options.NetworkPrecision = "fp32",
    steps: options.SamplingSteps = None,
    every: options.Every = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the scores to this file")
    ] = None,
    record: Annotated[
        bool, typer.Option(help="write the scores into bundle.json and MODEL_CARD.md")
    ] = False,
) -> None:
    """Score a bundle on held-out data through the vehicle's own runtime.

    Each set is scored on its split val, dev or test, by day clean, dark and hazy, and by night,
    with every score that its labels, boxes and thermal images allow. A model card shows these
    scores; `evaluate` measures the same and more, next to other methods, and writes a report.

    Ctrl-C keeps the scores of the finished sets and records none; the exit code is 130.
    """
    if json_file:
        check_file(json_file)  # fail now, not after minutes
    loaded = Bundle.load(bundle)
    sources = [Source.parse(text) for text in data]
    card = loaded.root / "MODEL_CARD.md"
    if record:
        read_card(card)
        for path in (card, loaded.root / MANIFEST):
            check_file(path)
    fuser = Fuser(loaded, select(backend, precision=precision), steps=steps)
    names = [c.name for c in loaded.manifest.classes]
    suite = short_suite(fuser, names)
    scores = no_scores(loaded, fuser, backend, precision, every)
    sets = open_sets(sources, names, every, loaded.manifest.provenance.data)
    try:
        for name, frames in sets.items():
            scores["sets"][name] = score_set(fuser, suite, frames, name)
    except KeyboardInterrupt:
        scores["stopped"] = "interrupted"
    print_scores(scores)
    if json_file:
        write_text(json_file, json.dumps(as_json(scores), indent=2) + "\n")
    if "stopped" in scores:
        say(f"interrupted: {len(scores['sets'])} of {len(sets)} sets are scored", "red")
        raise typer.Exit(INTERRUPTED)
    if record:
        old = loaded.manifest
        short = as_json(without_details(scores))
        new = old.provenance.model_copy(update={"scores": short})
        write_into_card(scores, card)
        write_manifest(loaded.root, old.model_copy(update={"provenance": new}))


def no_scores(
    bundle: Bundle, fuser: Fuser, backend: str, precision: Precision, every: int
) -> dict[str, Any]:
    """Return scores without any set yet: what is scored, and how."""
    return {
        "bundle": bundle.manifest.name,
        "fingerprint": bundle.fingerprint,
        "backend": choose(backend, precision).used,
        "precision": precision,
        "steps": fuser.steps,
        "tau": fuser.tau,
        "every": every,
        "intervals": f"[value, low, high]: percentiles {PERCENT[0]} and {PERCENT[1]} of "
        f"{RESAMPLES} resamples of frames",
        "sets": {},
    }
