# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse bench`: times the pipeline from the uint8 frame to the uint8 outputs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from magicfuse_ros import backends
from magicfuse_ros.backends.engine_cache import ASKED_PRECISIONS, AskedPrecision
from magicfuse_ros.bench.messages import Job
from magicfuse_ros.bench.report import BenchReport, Skipped, make_report
from magicfuse_ros.bench.rounds import TimedProcess
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.command_line import INTERRUPTED, SeveralValues, output_console, unclipped
from magicfuse_ros.commands.options import BundleFolder
from magicfuse_ros.errors import BackendError, MagicFuseError
from magicfuse_ros.image_codec import MAX_PIXELS
from magicfuse_ros.output_files import check_file, write_text
from magicfuse_ros.outputs import Output, available_outputs

# The outputs that fuse_node publishes by default.
DEFAULT_OUTPUTS: tuple[Output, ...] = ("mag_image", "mask", "confidence")
SIZE = "640x480"
_CTRL_C = "interrupted"


class SeveralCombinations(SeveralValues):
    """Lets these options take several values."""

    several: ClassVar = {
        "--backend": r"\w+",
        "--precision": r"\w+",
        "--size": r"\w+",
        "--steps": r"\d+",
    }


def bench_command(
    bundle: BundleFolder = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help=f"{', '.join(backends.BACKENDS)}; auto if omitted."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help=f"{', '.join(ASKED_PRECISIONS)}; auto if omitted."),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="WxH...", help=f"Size of the camera's frame; {SIZE} if omitted."),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(metavar="K...", help="Diffusion steps; the bundle's default if omitted."),
    ] = None,
    all_outputs: Annotated[
        bool,
        typer.Option(
            "--all-outputs", help="Time all outputs, not only MagImg, mask and confidence."
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all cores.")] = 0,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of timing; each takes all combinations in turn.")
    ] = 10,
    frames: Annotated[int, typer.Option(min=1, help="Frames to time in each round.")] = 10,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the result to this file.")
    ] = None,
) -> None:
    """Time the pipeline on this machine; options with several values are compared in turn.

    Ctrl-C reports the finished rounds and ends with exit code 130.
    """
    if json_file:
        check_file(json_file)  # fail now, not after minutes
    loaded = Bundle.load(bundle or default_bundle())
    console = output_console()
    counts: Sequence[int | None] = steps or [None]
    jobs = [
        Job(
            bundle=loaded.root,
            backend=b,
            precision=p,
            width=w,
            height=h,
            steps=k,
            threads=threads,
            outputs=available_outputs(loaded.manifest) if all_outputs else DEFAULT_OUTPUTS,
        )
        for b, p, (w, h), k in itertools.product(
            backend or ["auto"],
            map(_precision, precision or ["auto"]),
            map(_size, size or [SIZE]),
            counts,
        )
    ]
    report = run(loaded, jobs, rounds, frames, console)
    _print(report, console)
    if json_file:
        write_text(json_file, report.model_dump_json(indent=2) + "\n")
    if report.stopped:
        line = f"{report.stopped} after {report.rounds} of {rounds} rounds, which are reported"
        console.print(Text(line, "red"), soft_wrap=True)
        raise typer.Exit(INTERRUPTED if report.stopped == _CTRL_C else 2)


def run(
    bundle: Bundle, jobs: Sequence[Job], rounds: int, frames: int, console: Console
) -> BenchReport:
    """Time combinations in interleaved rounds; skip and report those that cannot run here.

    If the user presses Ctrl-C, or a combination fails later, the complete rounds count, and the
    report says why there are no more.

    Raises:
        BackendError: if none can run, or one fails in the first round.
        KeyboardInterrupt: if Ctrl-C comes before the end of the first round.
    """
    stopped: str | None = None
    skipped: list[Skipped] = []
    processes: list[TimedProcess] = []
    with ExitStack() as stack:
        for job in jobs:
            console.print(Text(f"loading {job}", "dim"), soft_wrap=True)
            try:
                processes.append(stack.enter_context(TimedProcess(job)))
            except BackendError as error:
                skipped.append(Skipped(combination=str(job), reason=str(error)))
                console.print(Text(f"skipped {job}: {error}", "yellow"), soft_wrap=True)
        if not processes:
            raise BackendError(f"no combination can run here: {skipped[0].reason}")
        progress = Progress(
            TextColumn("timing"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        with progress:
            task = progress.add_task("", total=rounds * len(processes))
            try:
                for process in processes * rounds:
                    process.run(frames)
                    progress.advance(task)
            except (KeyboardInterrupt, BackendError) as error:
                if not (done := min(len(process.rounds) for process in processes)):
                    raise
                for process in processes:  # drop the unfinished round: all have equal counts
                    del process.rounds[done:]
                stopped = str(error) or _CTRL_C
        return make_report(bundle, processes, skipped, frames, stopped)


def _precision(text: str) -> AskedPrecision:
    if text not in ASKED_PRECISIONS:
        known = ", ".join(ASKED_PRECISIONS)
        raise MagicFuseError(f"precision is '{text}'; expected one of {known}")
    return text


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise MagicFuseError(f"size is '{text}'; expected WIDTHxHEIGHT, such as 1280x720")
    width, height = int(match[1]), int(match[2])
    if width * height > MAX_PIXELS:
        raise MagicFuseError(f"size is '{text}'; expected at most {MAX_PIXELS} pixels")
    return width, height


def _print(report: BenchReport, console: Console) -> None:
    machine = report.machine
    title = f"{report.bundle} on {machine.cpu}, {machine.cores} cores"
    if machine.conv_peak_gflops is not None:
        title += f", whose convolutions reach {machine.conv_peak_gflops:.0f} GFLOP/s"
    if machine.gpu is not None:
        gpu = machine.gpu
        title += f"; {gpu.name}, driver {gpu.driver}, power mode {gpu.power_mode}"
    table = Table("", title=title, title_justify="left")
    results = report.results
    for r in results:
        heading = f"{r.backend}\n{r.precision}\n{r.width}x{r.height}\nK = {r.steps}"
        table.add_column(heading, justify="right")
    for stage in results[0].stages_ms:
        table.add_row(stage, *(f"{r.stages_ms[stage].median:.2f}" for r in results))
    table.add_section()
    table.add_row("median, ms", *(f"{r.median_ms:.1f}" for r in results))
    table.add_row("p95, ms", *(f"{r.p95_ms:.1f}" for r in results))
    table.add_row("frames a second", *(f"{r.fps:.1f}" for r in results))
    table.add_row("GFLOP", *(f"{r.gflop:.2f}" for r in results))
    table.add_row("peak, GFLOP/s", *(_figure(r.conv_peak_gflops, ".0f") for r in results))
    table.add_row("efficiency", *(_figure(r.efficiency, ".0%") for r in results))
    table.add_row("peak ratio", *(_figure(r.peak_ratio, ".2f") for r in results))
    table.add_row("RSS, MB", *(f"{r.rss_mb:.0f}" for r in results))
    table.add_row("start to first frame, s", *(f"{r.load_to_first_frame_s:.1f}" for r in results))
    console.print(unclipped(table))


def _figure(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)
