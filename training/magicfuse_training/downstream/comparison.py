# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The downstream comparison: one SegFormer for each set, input and seed, and a table of all.

RUN/config.yaml, data.tsv             what determines the result, see `run_folder`
RUN/environment.jsonl                 one line for every start
RUN/inputs/                           see `inputs`
RUN/models/SET/INPUT/seed-N/last.pt   a network's checkpoint
RUN/models/SET/INPUT/seed-N/scores.pt its confusion matrices, one for each held-out image
RUN/downstream.json, downstream.md    the table of what is done
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from magicfuse_ros.command_line import output_console
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.output_files import write_text
from magicfuse_training.arrays import I64
from magicfuse_training.data.mix import Source, by_name
from magicfuse_training.downstream.inputs import INPUTS, PARTS, Input, InputSet, Limits, Part
from magicfuse_training.downstream.segformer import MIT_B0, Budget, Files, confusions, train
from magicfuse_training.downstream.table import END, START, as_markdown, set_scores
from magicfuse_training.metrics.pages import write_page
from magicfuse_training.metrics.score import as_json
from magicfuse_training.stages import run_folder
from magicfuse_training.stages.checkpoint import read_checkpoint, save_atomically

__all__ = ["Budget", "Comparison"]

NAME = "downstream"  # base name of the table's files


class Comparison:
    """All networks of a run, and what they learn from."""

    def __init__(
        self,
        sources: Sequence[Source],
        names: Sequence[str],
        run: Path,
        limits: Limits,
        budget: Budget,
        seeds: int,
        about: Mapping[str, Any],
    ) -> None:
        """Find the data, and record what the run is, or check that it is the same as before.

        Args:
            sources: the sets.
            names: the bundle's classes.
            run: folder of the run.
            limits: how much of each set is used.
            budget: budget of every network.
            seeds: networks for each set and input.
            about: the bundle and how it runs.

        Raises:
            DataError: see `InputSet`.
            TrainingError: if the run was started with other settings or other data.
        """
        self.run, self.budget, self.seeds = run, budget, range(seeds)
        self.sets = {
            name: InputSet(source, names, run / "inputs" / name, limits)
            for name, source in by_name(sources).items()
        }
        self.about = {
            **about,
            "inputs": {**asdict(limits), "conditions": list(limits.conditions)},
            "training": asdict(budget),
        }
        content = {n: run_folder.data_rows(dict.fromkeys(s.folders)) for n, s in self.sets.items()}
        config = {
            "budget": {"seeds": seeds},  # a run may get more seeds
            **self.about,
            "network": MIT_B0,
            "sets": {
                # Include the content: two sets may have the same name and kind.
                name: {"kind": one.data.kind, "content": _fingerprint(content[name])}
                for name, one in self.sets.items()
            },
        }
        rows = list(dict.fromkeys(chain.from_iterable(content.values())))
        if (run / "config.yaml").is_file():
            run_folder.check_unchanged(run, config, rows)
        else:
            run.mkdir(parents=True, exist_ok=True)
            run_folder.write_start(run, config, rows)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        line = run_folder.environment(device, processes=1)
        line |= {"transformers": version("transformers"), "seeds": seeds}
        run_folder.append_line(run / "environment.jsonl", line)

    def make_inputs(self, fuser: Callable[[], Fuser]) -> None:
        """Make the images that are missing; `fuser` loads the bundle if there are any."""
        some = [one for one in self.sets.values() if any(map(one.missing, PARTS))]
        if some:
            loaded = fuser()
            for one in some:
                one.make(loaded)

    def train(self, page: Path | None = None) -> None:
        """Train and score all networks, and write the table after each.

        Args:
            page: also write the table between the markers of this page.

        Raises:
            TrainingError: see `segformer.train` and `pages.write_page`.
            KeyboardInterrupt: after Ctrl-C; what is done is kept.
        """
        self._write(page)
        # Seed after seed: an unfinished table then compares networks of equal seeds.
        for seed in self.seeds:
            for name in self.sets:
                for kind in INPUTS:
                    if not self._scores(name, kind, seed).exists():
                        self._train(name, kind, seed)
                        self._write(page)

    def files(self, name: str, part: Part, kind: Input) -> Files:
        """Return images and labels of a set's part."""
        one = self.sets[name]
        return [(one.image(part, kind, s), one.label(part, s)) for s in one.samples[part]]

    def _train(self, name: str, kind: Input, seed: int) -> None:
        classes = len(self.sets[name].classes)
        folder = self._scores(name, kind, seed).parent
        with Progress(console=output_console()) as bar:
            task = bar.add_task("", total=self.budget.steps)

            def tell(step: int, loss: float) -> None:
                about = f"{name}, {kind}, seed {seed}: loss {loss:.3f}"
                bar.update(task, completed=step, description=about)

            files = self.files(name, "train", kind)
            model = train(files, classes, folder, self.budget, seed, tell)
        matrices = confusions(model, self.files(name, "test", kind), classes)
        save_atomically({"matrices": torch.from_numpy(matrices)}, folder / "scores.pt")

    def _scores(self, name: str, kind: Input, seed: int) -> Path:
        return self.run / "models" / name / kind / f"seed-{seed}" / "scores.pt"

    def _matrices(self, name: str) -> dict[str, I64]:
        """Return the confusion matrices of each input that has any: (samples, seeds, R, C)."""
        found: dict[str, I64] = {}
        for kind in INPUTS:
            paths = [self._scores(name, kind, seed) for seed in self.seeds]
            there = [read_checkpoint(p, {"matrices"})["matrices"] for p in paths if p.exists()]
            if there:
                found[kind] = np.stack([m.numpy() for m in there], 1)
        return found

    def _write(self, page: Path | None) -> None:
        result: dict[str, Any] = {**self.about, "seeds": len(self.seeds), "sets": {}}
        for name, one in self.sets.items():
            counts = {"train_frames": one.frames("train"), "test_frames": one.frames("test")}
            samples = [(s.record.name, s.condition) for s in one.samples["test"]]
            scores = set_scores(self._matrices(name), samples, one.classes)
            result["sets"][name] = {"labels": one.origin, **counts, **scores}
        text = as_markdown(result)
        write_text(self.run / f"{NAME}.json", json.dumps(as_json(result), indent=2) + "\n")
        write_text(self.run / f"{NAME}.md", text)
        if page:
            write_page(page, START, END, text.rstrip("\n"))


def _fingerprint(rows: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()[:16]
