# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse run`: fuses pictures, videos or bags and writes everything to a folder."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from magicfuse_ros import backends
from magicfuse_ros.backends import Choice
from magicfuse_ros.backends.engine_cache import AskedPrecision
from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.bundle import Bundle, SemanticClass
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.command_line import INTERRUPTED, error_console
from magicfuse_ros.commands.options import (
    BackendName,
    BundleFolder,
    FitName,
    PrecisionName,
    Steps,
)
from magicfuse_ros.commands.results import (
    CONTACT_SHEET,
    REPORT,
    check_apart,
    check_free,
    check_replaceable,
    forget_notes,
    note_frame,
    open_inputs,
    remove_earlier,
    remove_frame,
)
from magicfuse_ros.errors import MagicFuseError, MediaError
from magicfuse_ros.fuser import OUTPUTS, FusedFrame, Fuser
from magicfuse_ros.geometry import Fit
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.interrupt import Interrupt
from magicfuse_ros.media import Frame, Refusal, Source
from magicfuse_ros.media.contact_sheet import PANEL_WIDTH, EvenSample, contact_sheet
from magicfuse_ros.media.panels import panel_height, scale_to
from magicfuse_ros.media.source import mostly_missing
from magicfuse_ros.output_files import make_folder, write_png, write_text
from magicfuse_ros.overlay import overlay

Row = tuple[str, list[Pixels]]


def run_command(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Picture, folder of pictures, video, or rosbag2."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; created if missing.")],
    bundle: BundleFolder = None,
    backend: BackendName = "auto",
    precision: PrecisionName = "auto",
    steps: Steps = None,
    fit: FitName = "letterbox",
    topic: Annotated[
        str | None, typer.Option(help="Image topic, if the rosbag2 has several.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Fuse the first N frames only.")] = None,
) -> None:
    """Fuse pictures, videos or bags, and write images, a contact sheet and a report.

    Results of an earlier run in the same folder are replaced, also those of a killed one. Ctrl-C
    leaves the report and the contact sheet of the finished frames, with exit code 130.
    """
    console = error_console()
    check_apart(inputs, out)
    check_replaceable(out)
    source = open_inputs(inputs, topic, console)
    loaded = Bundle.load(bundle or default_bundle())
    choice = backends.choose(backend, cast(AskedPrecision, precision), loaded)
    engine = backends.select(choice.used, precision=choice.precision)
    fuser = Fuser(loaded, engine, fit=cast(Fit, fit), steps=steps)
    line = f"{loaded.manifest.name} on {engine.name} {engine.version} ({choice.why})"
    console.print(Text(line, "dim"), soft_wrap=True)
    make_folder(out)
    fuser.warm_up()
    remove_earlier(out, console)

    run, stopped = Run(), None
    try:
        with Interrupt(hold=False, sigterm=True):
            fuse_source(source, fuser, loaded.manifest.classes, out, limit, console, run)
    except (KeyboardInterrupt, MagicFuseError) as error:
        stopped = error
    names = [str(path) for path in inputs]
    report = {
        "input": names[0] if len(names) == 1 else names,
        **_describe(loaded, engine, choice),
        "fit": fit,
        **({"stopped": str(stopped) or "interrupted"} if stopped else {}),
        **run.report(),
    }
    try:
        write_text(out / REPORT, json.dumps(report, indent=2) + "\n")
        if run.frames:
            legend = [(c.name, c.color) for c in loaded.manifest.classes]
            write_png(out / CONTACT_SHEET, contact_sheet(run.sheet.items(), legend=legend))
        forget_notes(out)
    except MediaError as error:  # a full disk: the first error is the cause
        raise (stopped if isinstance(stopped, MagicFuseError) else error) from error
    if isinstance(stopped, MagicFuseError):
        raise stopped
    if stopped is None and not run.frames:
        first = f"; {run.refused[0].name}: {run.refused[0].reason}" if run.refused else ""
        raise MediaError(f"'{source.name}' holds no frame that can be fused{first}")
    _print_summary(run, out, console, len(source) if stopped else None)
    if stopped is not None:
        raise typer.Exit(INTERRUPTED)
    if mostly_missing(source, run.missing):
        last = run.refused[-1].reason
        raise MediaError(f"most of '{source.name}' is lost, {run.missing + 1} frames: {last}")


@dataclass
class Run:
    """The outcome of each frame of a source."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    missing: int = 0
    damage: list[str] = field(default_factory=list)
    sheet: EvenSample[Row] = field(default_factory=EvenSample)

    def report(self) -> dict[str, Any]:
        """Return what report.json says of frames: counts, median ms, refusals, damage, frames."""
        return {
            "counts": {
                "read": len(self.frames) + len(self.refused),
                "fused": len(self.frames),
                "refused": len(self.refused),
                **({"missing": self.missing} if self.missing else {}),
            },
            "median_ms": self.median_ms(),
            "refused": [asdict(refusal) for refusal in self.refused],
            "damaged": self.damage,
            "frames": self.frames,
        }

    def median_ms(self) -> dict[str, float]:
        """Return the median of every stage over the frames, in milliseconds."""
        if not self.frames:
            return {}
        stages = self.frames[0]["ms"]
        return {s: round(statistics.median(f["ms"][s] for f in self.frames), 3) for s in stages}


def fuse_source(
    source: Source,
    fuser: Fuser,
    classes: Sequence[SemanticClass],
    out: Path,
    limit: int | None,
    console: Console,
    run: Run,
) -> None:
    """Fuse the first `limit` frames (None: all) and write their images below `out`.

    `run` is always up to date: after an error or Ctrl-C it holds all frames before that one.

    Raises:
        MediaError: if a file cannot be written.
        BackendError: if a network fails.
    """
    progress = Progress(
        TextColumn("fusing"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[ms]}"),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        total = min(len(source), limit or len(source))
        task = progress.add_task("", total=total, ms="")
        try:
            for frame in islice(source, limit):
                check_free(out, frame.name)
                fused = fuser(frame.image)
                ms = {stage: round(value, 3) for stage, value in fused.stages_ms.items()}
                row = {"name": frame.name, "stamp_ns": frame.stamp_ns, "K": fused.steps, "ms": ms}
                try:
                    note_frame(out, frame.name)
                    _write(frame, fused, classes, out, run.sheet)
                    run.frames.append(row)
                except BaseException:
                    if row not in run.frames[-1:]:
                        remove_frame(out, frame.name)
                    raise
                done = len(run.frames) + len(source.refused)
                progress.update(task, completed=min(done, total), ms=f"{ms['total']:.0f} ms")
        finally:
            run.refused = list(source.refused)
            run.missing = source.missing
            run.damage = list(source.damage)
        progress.update(task, completed=total)


def _write(
    frame: Frame,
    fused: FusedFrame,
    classes: Sequence[SemanticClass],
    out: Path,
    sheet: EvenSample[Row],
) -> None:
    found: dict[str, Pixels | None] = {name: getattr(fused, name) for name in OUTPUTS}
    images = {name: image for name, image in found.items() if image is not None}
    images["overlay"] = overlay(images["mag_image"], images["mask"], classes)
    for folder, image in images.items():
        write_png(out / folder / f"{frame.name}.png", image)
    panels = (
        frame.image,
        *(images[n] for n in ("restored", "thermal_estimate", "mag_image", "overlay")),
    )

    def row() -> Row:  # small copies, because 4K frames would fill the memory
        width, height = PANEL_WIDTH, panel_height(frame.image, PANEL_WIDTH)
        return frame.name, [scale_to(panel, width, height) for panel in panels]

    sheet.offer(row)


def _describe(bundle: Bundle, backend: Backend, choice: Choice) -> dict[str, Any]:
    return {
        "bundle": {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint},
        "backend": {
            "name": backend.name,
            "version": backend.version,
            "device": backend.device,
            "precision": choice.precision,
            "asked": choice.asked,
            "why": choice.why,
        },
    }


def _print_summary(run: Run, out: Path, console: Console, announced: int | None) -> None:
    """Print a summary; `announced` is the total number of frames if not all were read."""
    read = len(run.frames) + len(run.refused) + run.missing
    line = f"fused {len(run.frames)} of {read} frames"
    if announced is not None:
        line = f"interrupted: fused {len(run.frames)} of {announced} frames"
    if run.frames:
        line += f", median {run.median_ms()['total']:.1f} ms a frame"
    style = "" if announced is None else "red"
    console.print(Text(f"{line}, into {out}", style), soft_wrap=True)
    if run.refused:
        first = run.refused[0]
        line = f"refused {len(run.refused)}, see {REPORT}; the first: {first.name}: {first.reason}"
        console.print(Text(line, "yellow"), soft_wrap=True)
    if run.missing:
        line = f"missing {run.missing} more frames: {run.refused[-1].reason}"
        console.print(Text(line, "yellow"), soft_wrap=True)
    for sentence in run.damage:
        console.print(Text(sentence, "yellow"), soft_wrap=True)
