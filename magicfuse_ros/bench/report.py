"""The result of a benchmark, as it is written to JSON and committed under `benchmarks/`.

Two ratios mean the same on every machine. `efficiency` is the pipeline's rate of computation
divided by the machine's convolution peak. `peak_ratio` is frame time x peak / 10 GFLOP: how many
times longer a frame takes than 10 GFLOP of convolutions at that peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from magicfuse_ros.bench.gpu import Gpu
from magicfuse_ros.bench.machine import core_count, cpu_name, current_commit
from magicfuse_ros.bench.messages import Round
from magicfuse_ros.bench.rounds import Worker
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.outputs import frame_gflop

BUDGET_GFLOP = 10.0  # of a frame of nano


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Model):
    """The machine that was measured."""

    cpu: str
    cores: int
    conv_peak_gflops: float | None = Field(
        description="GFLOP/s of the CPU: median of the best of every round; null if not measured"
    )
    gpu: Gpu | None = Field(None, description="that any of the results was measured on")


class Quantiles(_Model):
    """Quantiles of a stage's times, in ms."""

    median: float
    p95: float


class Result(_Model):
    """One combination."""

    backend: str
    backend_version: str
    precision: str
    width: int
    height: int
    steps: int
    outputs: list[str]
    gflop: float = Field(description="of a frame with these steps and outputs")
    median_ms: float = Field(description="end to end, from uint8 frame to uint8 outputs")
    p95_ms: float
    fps: float = Field(description="frames over the time of all of them")
    stages_ms: dict[str, Quantiles]
    rss_mb: float = Field(description="resident memory, 2^20 bytes, of a process of its own")
    load_to_first_frame_s: float = Field(description="from the start of that process")
    conv_peak_gflops: float | None = Field(
        description="of the CPU or GPU that it ran on, measured in that process, between the "
        "frames: of a CPU in float32, of a GPU in the result's precision; null if not measured"
    )
    efficiency: float | None
    peak_ratio: float | None


class Skipped(_Model):
    """A combination that cannot run here."""

    combination: str
    reason: str


class Report(_Model):
    """The whole file."""

    machine: Machine
    commit: str = Field(description="of this program")
    created: str = Field(description="date, UTC")
    bundle: str
    bundle_sha256: str = Field(description="over the hashes of the networks")
    gflop_per_frame: float = Field(description="of the bundle's default: its K, MagImg and mask")
    threads: int
    rounds: int
    frames_per_round: int
    results: list[Result]
    skipped: list[Skipped]
    stopped: str | None = Field(None, description="why there are fewer rounds than asked for")


def make_report(
    bundle: Bundle,
    workers: Sequence[Worker],
    skipped: Sequence[Skipped],
    frames: int,
    stopped: str | None = None,
) -> Report:
    """Summarise the measurements of the workers, of which there must be at least one."""
    on_cpu = [r for worker in workers if not worker.ready.gpu for r in worker.rounds]
    manifest = bundle.manifest
    default = frame_gflop(bundle, ("mag_image", "mask", "confidence"), manifest.default_steps)
    return Report(
        machine=Machine(
            cpu=cpu_name(),
            cores=core_count(),
            conv_peak_gflops=_rounded(_peak(on_cpu), 1),
            gpu=next((worker.ready.gpu for worker in workers if worker.ready.gpu), None),
        ),
        commit=current_commit(Path(__file__).parent),
        created=datetime.now(timezone.utc).date().isoformat(),
        bundle=manifest.name,
        bundle_sha256=bundle.fingerprint,
        gflop_per_frame=round(default, 6),
        threads=workers[0].job.threads,
        rounds=len(workers[0].rounds),
        frames_per_round=frames,
        results=[summarise(worker) for worker in workers],
        skipped=list(skipped),
        stopped=stopped,
    )


def summarise(worker: Worker) -> Result:
    """Return the result of one combination."""
    times = [ms for r in worker.rounds for ms in r.end_to_end_ms]
    whole = _quantiles(times)
    peak = _peak(worker.rounds)
    seconds = whole.median / 1e3
    return Result(
        backend=worker.ready.backend,
        backend_version=worker.ready.version,
        precision=worker.ready.precision,
        width=worker.job.width,
        height=worker.job.height,
        steps=worker.ready.steps,
        outputs=list(worker.job.outputs),
        gflop=round(worker.ready.gflop, 6),
        median_ms=whole.median,
        p95_ms=whole.p95,
        fps=round(1e3 / float(np.mean(times)), 2),
        stages_ms=_stages(worker.rounds),
        rss_mb=round(worker.rounds[0].rss_mb, 1),  # later rounds also hold the convolutions
        load_to_first_frame_s=round(worker.load_to_first_frame_s, 3),
        conv_peak_gflops=_rounded(peak, 1),
        efficiency=_rounded(peak and worker.ready.gflop / seconds / peak, 4),
        peak_ratio=_rounded(peak and seconds * peak / BUDGET_GFLOP, 4),
    )


def _peak(rounds: Sequence[Round]) -> float | None:
    """Return the median peak; None if it was not measured."""
    measured = [r.conv_peak_gflops for r in rounds if r.conv_peak_gflops is not None]
    return float(np.median(measured)) if measured else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _stages(rounds: Sequence[Round]) -> dict[str, Quantiles]:
    return {
        s: _quantiles([ms for r in rounds for ms in r.stages_ms[s]]) for s in rounds[0].stages_ms
    }


def _quantiles(ms: Sequence[float]) -> Quantiles:
    median, p95 = np.percentile(ms, (50, 95))
    return Quantiles(median=round(float(median), 3), p95=round(float(p95), 3))
