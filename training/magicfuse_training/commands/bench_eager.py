# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train bench-eager`: compares the speed of the vehicle's runtime with eager torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, cast

import numpy as np
import torch
import typer
from rich.table import Table

from magicfuse_ros.backends.cpu import core_count
from magicfuse_ros.backends.engine_cache import PRECISIONS, Precision
from magicfuse_ros.bench.machine import cpu_name, current_commit
from magicfuse_ros.bench.messages import Job
from magicfuse_ros.bench.report import BenchResult, summarise
from magicfuse_ros.bench.rounds import TimedProcess
from magicfuse_ros.bench.timed_process import frame, time_frames
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.command_line import SeveralValues, output_console, unclipped
from magicfuse_ros.errors import BackendError
from magicfuse_ros.fuser import Fuser, Output
from magicfuse_ros.output_files import check_file, write_text
from magicfuse_training.commands import options
from magicfuse_training.console import say
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.eager import EagerBackend
from magicfuse_training.export.weights import load_weights
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import load_preset

OUTPUTS: tuple[Output, ...] = ("mag_image", "mask", "confidence")


class SeveralPrecisions(SeveralValues):
    """Accepts several values for --precision."""

    several: ClassVar = {"--precision": r"\w+"}


def bench_eager_command(
    bundle: options.BundleFolder,
    preset: Annotated[
        str | None, typer.Option(help="preset of the bundle; default: its own")
    ] = None,
    backend: Annotated[str, typer.Option(help="backend of the vehicle's runtime")] = "openvino",
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help=f"{', '.join(PRECISIONS)}; default: fp32"),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of both; 0: all cores")] = 0,
    rounds: Annotated[
        int, typer.Option(min=1, help="rounds of timing; each takes all in turn")
    ] = 10,
    frames: Annotated[int, typer.Option(min=1, help="frames to time in each round")] = 10,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the result to this file")
    ] = None,
) -> None:
    """Time eager torch and the vehicle's runtime in turn, uint8 to uint8, on the same threads."""
    if json_file:
        check_file(json_file)  # fail now, not after minutes
    loaded = Bundle.load(bundle)
    manifest = loaded.manifest
    model = MagicFuse(load_preset(preset or manifest.preset)).eval()
    try:
        load_weights(model, loaded)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    torch.set_num_threads(threads or core_count())
    fuser = Fuser(loaded, EagerBackend(model))
    jobs = [
        Job(
            bundle=loaded.root,
            backend=backend,
            precision=cast(Precision, name),
            width=manifest.width,
            height=manifest.height,
            steps=None,
            threads=threads,
            outputs=OUTPUTS,
        )
        for name in precision or ["fp32"]
    ]
    eager_ms, results = compare(fuser, jobs, rounds, frames)
    median = float(np.median(eager_ms))
    _print(median, results)
    if json_file:
        report = {
            "machine": {"cpu": cpu_name(), "cores": core_count()},
            "commit": current_commit(Path(__file__).parent),
            "bundle_sha256": loaded.fingerprint,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "eager_median_ms": round(median, 3),
            "results": [
                {**r.model_dump(), "times_faster": round(median / r.median_ms, 3)} for r in results
            ],
        }
        write_text(json_file, json.dumps(report, indent=2) + "\n")


def compare(
    eager: Fuser, jobs: Sequence[Job], rounds: int, frames: int
) -> tuple[list[float], list[BenchResult]]:
    """Return the times of eager frames, in ms, and the results of the jobs that run here."""
    image = frame(jobs[0].height, jobs[0].width)
    eager_ms: list[float] = []

    def run_eager() -> None:
        eager_ms.extend(time_frames(lambda: eager(image, OUTPUTS), frames)[0])

    turns: list[Callable[[], None]] = [run_eager]
    workers: list[TimedProcess] = []
    with ExitStack() as stack:
        for job in jobs:
            try:
                worker = stack.enter_context(TimedProcess(job))
            except BackendError as error:
                say(f"skipped {job}: {error}", "yellow")
                continue
            workers.append(worker)
            turns.append(partial(worker.run, frames))
        for turn in turns * rounds:
            turn()
        return eager_ms, [summarise(worker) for worker in workers]


def _print(eager_ms: float, results: Sequence[BenchResult]) -> None:
    table = Table("", "precision", title=f"on {cpu_name()}", title_justify="left")
    for column in ("median ms", "times faster"):
        table.add_column(column, justify="right")
    table.add_row(f"torch eager {torch.__version__}", "fp32", f"{eager_ms:.1f}", "1.00")
    for r in results:
        faster = f"{eager_ms / r.median_ms:.2f}"
        table.add_row(f"{r.backend} {r.backend_version}", r.precision, f"{r.median_ms:.1f}", faster)
    output_console().print(unclipped(table))
