"""`magicfuse bench`: times the pipeline, from uint8 frame to uint8 outputs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from magicfuse_ros import backends
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle_path import default_bundle
from magicfuse_ros.engine_cache import PRECISIONS, Precision
from magicfuse_ros.errors import MediaError
from magicfuse_ros.fuser import OUTPUTS, FusedFrame, Fuser, Output
from magicfuse_ros.sampler import frame_gflop

# What fuse_node publishes by default, and everything there is.
MEASURED: tuple[tuple[Output, ...], ...] = (("mag_image", "mask", "confidence"), OUTPUTS)
WARM_UP_FRAMES = 3


def bench_command(
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle folder; the default bundle if omitted.")
    ] = None,
    backend: Annotated[str, typer.Option(help=", ".join(backends.BACKENDS))] = "auto",
    precision: Annotated[str, typer.Option(help=", ".join(PRECISIONS))] = "fp32",
    steps: Annotated[int | None, typer.Option(help="K; the bundle's default if omitted.")] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Of the frame; the networks' if omitted.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Of the frame; the networks' if omitted.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes all cores.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Timed frames of each set of outputs.")] = 50,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the result to this file.")
    ] = None,
) -> None:
    """Time the pipeline on this machine."""
    console = Console()
    loaded = Bundle.load(bundle or default_bundle())
    choice = backends.choose(backend, cast(Precision, precision))
    chosen = backends.select(backend, threads, cast(Precision, precision))
    console.print(Text(f"{chosen.name} {chosen.version} ({choice.why})", "dim"), soft_wrap=True)
    fuser = Fuser(loaded, chosen, steps=steps)
    size = (height or loaded.manifest.height, width or loaded.manifest.width, 3)
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    results = []
    for outputs in MEASURED:
        console.print(f"timing {frames} frames: {', '.join(outputs)}", style="dim")
        result = measure(fuser, image, outputs, frames)
        gflop = round(frame_gflop(loaded, outputs, fuser.steps), 6)
        results.append({"outputs": list(outputs), "gflop_per_frame": gflop, **result})
    report = {
        "machine": machine(),
        "backend": {
            "name": chosen.name,
            "version": chosen.version,
            "device": chosen.device,
            "asked": choice.asked,
            "why": choice.why,
        },
        "threads": threads,
        "bundle": loaded.manifest.name,
        "fingerprint": loaded.fingerprint,
        "commit": loaded.manifest.provenance.commit,
        "precision": precision,
        "width": size[1],
        "height": size[0],
        "steps": fuser.steps,
        "frames": frames,
        "gflop_per_frame": results[0]["gflop_per_frame"],
        "results": results,
    }
    console.print(_table(report))
    if json_file:
        try:
            json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise MediaError(f"cannot write '{json_file}': {error.strerror}") from error


def measure(
    fuse: Callable[[npt.NDArray[np.uint8], tuple[Output, ...]], FusedFrame],
    image: npt.NDArray[np.uint8],
    outputs: tuple[Output, ...],
    frames: int,
) -> dict[str, Any]:
    """Fuse `frames` times after a warm-up; return fps, and median and p95 in ms.

    fps is frames over the wall time of all of them, so that slow frames count.
    """
    for _ in range(WARM_UP_FRAMES):
        fuse(image, outputs)
    end_to_end: list[float] = []
    stages: dict[str, list[float]] = {}
    for _ in range(frames):
        start = perf_counter()
        fused = fuse(image, outputs)
        end_to_end.append((perf_counter() - start) * 1e3)
        for stage, ms in fused.stages_ms.items():
            stages.setdefault(stage, []).append(ms)
    return {
        "fps": 1e3 * frames / sum(end_to_end),
        "end_to_end_ms": _quantiles(end_to_end),
        "stages_ms": {s: _quantiles(ms) for s, ms in stages.items() if s != "total"},
    }


def machine() -> dict[str, Any]:
    """Return the CPU's name and the number of cores that this process may use."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.is_file() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
            break
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0))}


def _quantiles(ms: list[float]) -> dict[str, float]:
    median, p95 = np.percentile(ms, (50, 95))
    return {"median": round(float(median), 3), "p95": round(float(p95), 3)}


def _table(report: dict[str, Any]) -> Table:
    backend = report["backend"]
    title = (
        f"{report['bundle']}, K = {report['steps']}, {report['width']} x {report['height']}, "
        f"{backend['name']} {backend['version']} on {report['machine']['cpu']}, "
        f"{report['machine']['cores']} cores"
    )
    table = Table("median ms", title=title, title_justify="left")
    for result in report["results"]:
        everything = len(result["outputs"]) == len(OUTPUTS)
        label = "all outputs" if everything else "\n".join(result["outputs"])
        table.add_column(label, justify="right")
        table.add_column("p95", justify="right")
    results = report["results"]
    for stage in results[0]["stages_ms"]:
        table.add_row(stage, *_cells([result["stages_ms"][stage] for result in results]))
    table.add_section()
    table.add_row("end to end", *_cells([result["end_to_end_ms"] for result in results]))
    table.add_row("fps", *(cell for r in results for cell in (f"{r['fps']:.1f}", "")))
    table.add_row("GFLOP", *(c for r in results for c in (f"{r['gflop_per_frame']:.2f}", "")))
    return table


def _cells(quantiles: list[dict[str, float]]) -> list[str]:
    return [f"{value:.2f}" for q in quantiles for value in (q["median"], q["p95"])]
