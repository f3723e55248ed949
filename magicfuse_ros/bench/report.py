# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

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

from magicfuse_ros.backends.cpu import core_count
from magicfuse_ros.bench.gpu import Gpu
from magicfuse_ros.bench.machine import cpu_name, current_commit
from magicfuse_ros.bench.messages import Round
from magicfuse_ros.bench.rounds import TimedProcess
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
    gpu: Gpu | None = Field(None, description="the GPU of the results, if any ran on one")


class Quantiles(_Model):
    """Quantiles of a stage's times, in ms."""

    median: float
    p95: float


class BenchResult(_Model):
    """One combination."""

    backend: str
    backend_version: str
    precision: str
    width: int
    height: int
    steps: int
    outputs: list[str]
    gflop: float = Field(description="cost of a frame with these steps and outputs")
    median_ms: float = Field(description="end to end, from uint8 frame to uint8 outputs")
    p95_ms: float
    fps: float = Field(description="number of frames divided by their total time")
    stages_ms: dict[str, Quantiles]
    rss_mb: float = Field(
        description="resident memory of the combination's own process, 2^20 bytes"
    )
    load_to_first_frame_s: float = Field(description="from the start of that process")
    conv_peak_gflops: float | None = Field(
        description="peak of the CPU or GPU that it ran on, measured in that process between the "
        "frames: float32 on a CPU, the result's precision on a GPU; null if not measured"
    )
    efficiency: float | None
    peak_ratio: float | None


class Skipped(_Model):
    """A combination that cannot run here."""

    combination: str
    reason: str


class BenchReport(_Model):
    """The whole file."""

    machine: Machine
    commit: str = Field(description="commit of this program")
    created: str = Field(description="date, UTC")
    bundle: str
    bundle_sha256: str = Field(description="SHA-256 over the hashes of the networks")
    gflop_per_frame: float = Field(
        description="cost with the bundle's default K, for MagImg and mask"
    )
    threads: int
    rounds: int
    frames_per_round: int
    results: list[BenchResult]
    skipped: list[Skipped]
    stopped: str | None = Field(None, description="why there are fewer rounds than asked for")


def make_report(
    bundle: Bundle,
    processes: Sequence[TimedProcess],
    skipped: Sequence[Skipped],
    frames: int,
    stopped: str | None = None,
) -> BenchReport:
    """Summarise the measurements of the processes, of which there must be at least one."""
    on_cpu = [r for process in processes if not process.ready.gpu for r in process.rounds]
    manifest = bundle.manifest
    default = frame_gflop(bundle, ("mag_image", "mask", "confidence"), manifest.default_steps)
    return BenchReport(
        machine=Machine(
            cpu=cpu_name(),
            cores=core_count(),
            conv_peak_gflops=_rounded(_peak(on_cpu), 1),
            gpu=next((process.ready.gpu for process in processes if process.ready.gpu), None),
        ),
        commit=current_commit(Path(__file__).parent),
        created=datetime.now(timezone.utc).date().isoformat(),
        bundle=manifest.name,
        bundle_sha256=bundle.fingerprint,
        gflop_per_frame=round(default, 6),
        threads=processes[0].job.threads,
        rounds=len(processes[0].rounds),
        frames_per_round=frames,
        results=[summarise(process) for process in processes],
        skipped=list(skipped),
        stopped=stopped,
    )


def summarise(process: TimedProcess) -> BenchResult:
    """Return the result of one combination."""
    times = [ms for r in process.rounds for ms in r.end_to_end_ms]
    whole = _quantiles(times)
    peak = _peak(process.rounds)
    seconds = whole.median / 1e3
    return BenchResult(
        backend=process.ready.backend,
        backend_version=process.ready.version,
        precision=process.ready.precision,
        width=process.job.width,
        height=process.job.height,
        steps=process.ready.steps,
        outputs=list(process.job.outputs),
        gflop=round(process.ready.gflop, 6),
        median_ms=whole.median,
        p95_ms=whole.p95,
        fps=round(1e3 / float(np.mean(times)), 2),
        stages_ms=_stages(process.rounds),
        rss_mb=round(process.rounds[0].rss_mb, 1),  # later rounds also hold the convolutions
        load_to_first_frame_s=round(process.load_to_first_frame_s, 3),
        conv_peak_gflops=_rounded(peak, 1),
        efficiency=_rounded(peak and process.ready.gflop / seconds / peak, 4),
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
