"""`magicfuse run`: fuses pictures, a video or a bag and writes everything to a folder."""

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
from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.bundle import Bundle, SemanticClass
from magicfuse_ros.bundle_path import default_bundle
from magicfuse_ros.commands.options import (
    BackendName,
    BundleFolder,
    FitName,
    PrecisionName,
    Steps,
)
from magicfuse_ros.engine_cache import Precision
from magicfuse_ros.errors import MediaError
from magicfuse_ros.fuser import OUTPUTS, FusedFrame, Fuser
from magicfuse_ros.geometry import Fit
from magicfuse_ros.image_codec import Image
from magicfuse_ros.media import Frame, Refusal, Source, open_source
from magicfuse_ros.media.contact_sheet import PANEL_WIDTH, EvenSample, contact_sheet
from magicfuse_ros.media.panels import panel_height, scale_to
from magicfuse_ros.media.png import write_png
from magicfuse_ros.overlay import overlay

CONTACT_SHEET = "contact_sheet.png"
REPORT = "report.json"

Row = tuple[str, list[Image]]


def run_command(
    input: Annotated[Path, typer.Argument(help="Picture, folder of pictures, video, or rosbag2.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if missing.")],
    bundle: BundleFolder = None,
    backend: BackendName = "auto",
    precision: PrecisionName = "fp32",
    steps: Steps = None,
    fit: FitName = "letterbox",
    topic: Annotated[
        str | None, typer.Option(help="Image topic of a rosbag2 that has several.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Fuse the first N frames only.")] = None,
) -> None:
    """Fuse pictures, a video or a bag, and write images, a contact sheet and a report."""
    source = open_source(input, topic)
    loaded = Bundle.load(bundle or default_bundle())
    choice = backends.choose(backend, cast(Precision, precision))
    engine = backends.select(backend, precision=cast(Precision, precision))
    fuser = Fuser(loaded, engine, fit=cast(Fit, fit), steps=steps)
    console = Console(stderr=True)
    line = f"{loaded.manifest.name} on {engine.name} {engine.version} ({choice.why})"
    console.print(Text(line, "dim"), soft_wrap=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"cannot make folder '{out}': {error.strerror}") from error

    fuser.warm_up()
    run = fuse_source(source, fuser, loaded.manifest.classes, out, limit, console)
    report = {
        "input": str(input),
        **_describe(loaded, engine, choice, precision),
        "fit": fit,
        **run.report(),
    }
    text = json.dumps(report, indent=2) + "\n"
    try:
        (out / REPORT).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MediaError(f"cannot write '{out / REPORT}': {error.strerror}") from error
    if not run.frames:
        first = f"; {run.refused[0].name}: {run.refused[0].reason}" if run.refused else ""
        raise MediaError(f"'{input}' holds no frame that can be fused{first}")
    legend = [(c.name, c.color) for c in loaded.manifest.classes]
    write_png(out / CONTACT_SHEET, contact_sheet(run.sheet.items(), legend=legend))
    _print_summary(run, out, console)


@dataclass
class Run:
    """What became of the frames of a source."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    sheet: EvenSample[Row] = field(default_factory=EvenSample)

    def report(self) -> dict[str, Any]:
        """Return the part of report.json about frames: counts, median ms, refusals, frames."""
        return {
            "counts": {
                "read": len(self.frames) + len(self.refused),
                "fused": len(self.frames),
                "refused": len(self.refused),
            },
            "median_ms": self.median_ms(),
            "refused": [asdict(refusal) for refusal in self.refused],
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
) -> Run:
    """Fuse the first `limit` frames (None: all) and write their images below `out`.

    Raises:
        MediaError: if a file cannot be written.
        BackendError: if a network fails.
    """
    run = Run()
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
        for frame in islice(source, limit):
            fused = fuser(frame.image)
            _write(frame, fused, classes, out, run.sheet)
            ms = {stage: round(value, 3) for stage, value in fused.stages_ms.items()}
            run.frames.append(
                {"name": frame.name, "stamp_ns": frame.stamp_ns, "K": fused.steps, "ms": ms}
            )
            done = len(run.frames) + len(source.refused)
            progress.update(task, completed=min(done, total), ms=f"{ms['total']:.0f} ms")
        progress.update(task, completed=total)
    run.refused = list(source.refused)
    return run


def _write(
    frame: Frame,
    fused: FusedFrame,
    classes: Sequence[SemanticClass],
    out: Path,
    sheet: EvenSample[Row],
) -> None:
    found: dict[str, Image | None] = {name: getattr(fused, name) for name in OUTPUTS}
    images = {name: image for name, image in found.items() if image is not None}
    images["overlay"] = overlay(images["mag_image"], images["mask"], classes)
    for folder, image in images.items():
        write_png(out / folder / f"{frame.name}.png", image)
    panels = (
        frame.image,
        *(images[n] for n in ("restored", "thermal_estimate", "mag_image", "overlay")),
    )

    def row() -> Row:  # small copies: a sheet of 4K frames would fill the memory
        width, height = PANEL_WIDTH, panel_height(frame.image, PANEL_WIDTH)
        return frame.name, [scale_to(panel, width, height) for panel in panels]

    sheet.offer(row)


def _describe(bundle: Bundle, backend: Backend, choice: Choice, precision: str) -> dict[str, Any]:
    return {
        "bundle": {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint},
        "backend": {
            "name": backend.name,
            "version": backend.version,
            "device": backend.device,
            "precision": precision,
            "asked": choice.asked,
            "why": choice.why,
        },
    }


def _print_summary(run: Run, out: Path, console: Console) -> None:
    read = len(run.frames) + len(run.refused)
    median = run.median_ms()["total"]
    line = f"fused {len(run.frames)} of {read} frames, median {median:.1f} ms a frame, into {out}"
    console.print(Text(line), soft_wrap=True)
    if run.refused:
        first = run.refused[0]
        line = f"refused {len(run.refused)}, see {REPORT}; the first: {first.name}: {first.reason}"
        console.print(Text(line, "yellow"), soft_wrap=True)
