# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The process that runs one combination: `python -m magicfuse_ros.bench.timed_process JOB`.

First writes `Ready` or `Failure` to stdout. Then reads numbers of frames from stdin and answers
each with a `Round`. Ends when stdin is closed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TextIO

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from magicfuse_ros import backends
from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.bench.gpu import find_gpu
from magicfuse_ros.bench.messages import Failure, Job, Ready, Round
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import BackendError, MagicFuseError
from magicfuse_ros.fuser import FusedFrame, Fuser
from magicfuse_ros.outputs import frame_gflop

WARM_UP_FRAMES = 3  # in every round, because the other processes have used the caches


def main() -> None:
    """Run the job given on the command line."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the replies
    with suppress(KeyboardInterrupt):  # Ctrl-C reaches every process; the parent reports it
        answer(Job.model_validate_json(sys.argv[1]), sys.stdin, replies)


def answer(job: Job, requests: Iterable[str], replies: TextIO) -> None:
    """Time each requested number of frames until there are no more requests."""

    def reply(message: BaseModel) -> None:
        print(message.model_dump_json(), file=replies, flush=True)

    try:
        bundle = Bundle.load(job.bundle)
        choice = backends.choose(job.backend, job.precision, bundle)
        backend = backends.select(choice.used, job.threads, choice.precision)
        fuser = Fuser(bundle, backend, steps=job.steps)
        image = frame(job.height, job.width)
        fuser(image, job.outputs)
        reply(
            Ready(
                backend=backend.name,
                version=backend.version,
                why=choice.why,
                precision=choice.precision,
                gpu=find_gpu()[0] if backends.on_gpu(choice.used) else None,
                steps=fuser.steps,
                gflop=frame_gflop(bundle, job.outputs, fuser.steps),
            )
        )
        peak: Callable[[], float | None] | None = None
        for request in requests:
            times, stages = time_frames(lambda: fuser(image, job.outputs), int(request))
            rss = resident_mb()
            if peak is None:
                peak = peak_of(backend, job.threads)  # only now: the memory was measured without it
            reply(Round(end_to_end_ms=times, stages_ms=stages, rss_mb=rss, conv_peak_gflops=peak()))
    except MagicFuseError as error:
        reply(Failure(error=str(error)))


def peak_of(backend: Backend, threads: int) -> Callable[[], float | None]:
    """Return a function that measures the convolution peak of the backend's device.

    The function returns None if a GPU's engines cannot be built, or on a CPU without OpenVINO.
    """
    try:
        if backends.on_gpu(backend.name):
            from magicfuse_ros.bench.gpu_peak import GpuPeak

            return GpuPeak(backend).measure
        from magicfuse_ros.bench.conv_peak import ConvolutionPeak

        return ConvolutionPeak(threads).measure
    except (ImportError, BackendError) as error:
        print(f"the convolution peak is not measured: {error}", file=sys.stderr)
        return lambda: None


def frame(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return the image to fuse: noise, because the cost does not depend on the content."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def time_frames(
    fuse: Callable[[], FusedFrame], frames: int
) -> tuple[list[float], dict[str, list[float]]]:
    """Warm up, then fuse frames; return each frame's end-to-end time and stage times in ms."""
    for _ in range(WARM_UP_FRAMES):
        fuse()
    end_to_end: list[float] = []
    stages: dict[str, list[float]] = {}
    for _ in range(frames):
        start = perf_counter()
        fused = fuse()
        end_to_end.append((perf_counter() - start) * 1e3)
        for stage, ms in fused.stages_ms.items():
            if stage != "total":
                stages.setdefault(stage, []).append(ms)
    return end_to_end, stages


def resident_mb() -> float:
    """Return the resident memory of this process in MB of 2^20 bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
