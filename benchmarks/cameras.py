# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What several cameras cost: all in one process, and in turn with a process for each.

python benchmarks/cameras.py [--rounds 3] [--json FILE]

Each camera sends 640x480 bgr8; MagImg and mask of each are subscribed to. The time of a frame on
all cores, in the precision that `auto` takes, is measured just before each count of cameras. All
of them together want 0.88 of that time: 4 cameras send 0.22 images in a frame time, each.

    share fused    images that were fused, of those that were sent
    age            camera stamp to publication, of every image (~/debug/age_ms)
    frame times    the age divided by the time of a frame in the same round
    memory         RSS of all processes, after the last image
    fairness       one camera at 200 Hz beside three at 10 Hz; a machine that cannot fuse 30 images
                   a second in 0.66 of its time gets 0.22 images in a frame time from each of them

The table has the medians of the rounds. Camera and subscriber are one process on the same cores;
its own cores and memory are not counted. Exit code 1: a limit was not kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Annotated, Any

import bench_rig as rig
import cameras_table
import numpy as np
import psutil
import typer
from sensor_msgs.msg import Image

from magicfuse_ros.backends import Choice, choose, select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.playback.children import Process
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.session import Session

COUNTS, LOAD = (4, 2), 0.88
FLOOD_HZ, CALM_HZ, CALM_LOAD, CALM = 200.0, 10.0, 0.22, 3
ARRANGEMENTS = ("separate", "one process")
WARM_UP_S = 3.0
SETTLE_S = 10.0  # for the counters; one that lost track of images is used as it is
RECEIVE_S = 0.002  # between two images, even if the next one is late
FRAMES = 40
AGES = 1000  # that may wait while this process is busy


def frame_ms(bundle: Bundle, choice: Choice) -> float:
    """Return the median time of a frame on all cores, with nothing else running."""
    fuser = Fuser(bundle, select(choice.used, precision=choice.precision))
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    times = []
    for _ in range(FRAMES):
        start = perf_counter()
        fuser(image, ("mag_image", "mask"))
        times.append(1e3 * (perf_counter() - start))
    return median(times[FRAMES // 4 :])


@contextmanager
def nodes(
    arrangement: str, namespaces: Sequence[str], bundle: Path, out: Path
) -> Iterator[list[Process]]:
    """Run a node for each namespace; gives the processes."""
    values: dict[str, Any] = {"bundle": str(bundle)}
    with ExitStack() as stack:
        if arrangement == "one process":
            yield [stack.enter_context(rig.fuse_cameras(namespaces, "image_raw", values, out))]
            return
        values["threads"] = max(1, len(os.sched_getaffinity(0)) // len(namespaces))
        yield [
            stack.enter_context(rig.fuse_node(f"{name}/fuse_node", "image_raw", values, out))
            for name in namespaces
        ]


class Viewed(rig.Camera):
    """A camera with a subscriber to its MagImg and mask, and the images a second to send."""

    def __init__(self, session: Session, namespace: str, rate: float) -> None:
        super().__init__(session, namespace, AGES)
        self.rate = rate
        for topic in ("mag_image", "segmentation/mask"):
            full = f"{self.name}/{topic}"
            session.node.create_subscription(Image, full, lambda _: None, qos.images(), raw=True)


def measure(
    arrangement: str, rates: Sequence[float], seconds: float, bundle: Path, out: Path
) -> dict[str, Any]:
    """Run a camera for each of the rates, all together.

    Raises:
        MagicFuseError: if a node does not come up.
    """
    namespaces = [f"/camera{number}" for number in range(len(rates))]
    with ExitStack() as stack:
        running = stack.enter_context(nodes(arrangement, namespaces, bundle, out))
        session = stack.enter_context(Session("cameras"))
        cameras = [Viewed(session, *given) for given in zip(namespaces, rates, strict=True)]

        def ready() -> bool:
            return all(camera.connected() for camera in cameras)

        rig.wait_until(ready, session, running, f"not all of {len(rates)} nodes became active")

        def settled() -> bool:
            return all(camera.settled() for camera in cameras)

        play(session, cameras, WARM_UP_S)
        session.spin_until(settled, SETTLE_S)
        before = [(camera.sent_in_all, camera.count("fused")) for camera in cameras]
        for camera in cameras:
            camera.ages_ms.clear()
        processes = [psutil.Process(process.pid) for process in running]
        used, start = _cpu_s(processes), monotonic()
        play(session, cameras, seconds)
        wall = monotonic() - start
        used = _cpu_s(processes) - used
        session.spin_until(settled, SETTLE_S)
        return {
            "cores": used / wall,
            "rss_mb": sum(process.memory_info().rss for process in processes) / 1e6,
            "each": [
                {
                    "rate": (camera.sent_in_all - sent) / wall,
                    "sent": camera.sent_in_all - sent,
                    "fused": camera.count("fused") - fused,
                    "age_ms": rig.quantiles(np.array(camera.ages_ms or [np.inf])),
                }
                for camera, (sent, fused) in zip(cameras, before, strict=True)
            ],
        }


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def play(session: Session, cameras: Sequence[Viewed], seconds: float) -> None:
    """Let every camera send at its rate; the images of equal cameras are evenly spread."""
    start = monotonic()
    end = start + seconds
    due = [start + n / camera.rate / len(cameras) for n, camera in enumerate(cameras)]
    while min(due) < end:
        number = int(np.argmin(due))
        session.spin_until(lambda: False, max(due[number] - monotonic(), RECEIVE_S))
        cameras[number].send()
        # One that is late sends less often: no burst follows.
        due[number] = max(due[number] + 1 / cameras[number].rate, monotonic())


def cameras(
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured, in turn.")] = 3,
    seconds: Annotated[float, typer.Option(min=2.0, help="Of each measurement.")] = 20.0,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Measure and print the table; exit with 1 if a limit was not kept."""
    out = rig.output_folder(rig.ROOT / "out" / "cameras")
    used = rig.load(bundle)
    choice = choose("auto", "auto", used)
    rows: list[dict[str, Any]] = []
    with rig.errors_in_one_line(out):
        for _ in range(rounds):
            for count in COUNTS:
                frame = frame_ms(used, choice)
                for arrangement in ARRANGEMENTS:
                    rates = [1e3 * LOAD / count / frame] * count
                    row = measure(arrangement, rates, seconds, used.root, out)
                    rows.append({"what": arrangement, "frame_ms": frame, **row})
            frame = frame_ms(used, choice)
            rates = [FLOOD_HZ, *[min(CALM_HZ, 1e3 * CALM_LOAD / frame)] * CALM]
            row = measure("one process", rates, seconds, used.root, out)
            rows.append({"what": "fairness", "frame_ms": frame, **row})
    result = {
        **rig.head(used),
        "backend": choice.used,
        "precision": choice.precision,
        "load": LOAD,
        "seconds": seconds,
        "rounds": rounds,
        **cameras_table.judge(rows),
        "rows": rows,
    }
    print(cameras_table.section(result))
    rig.write(result, file)
    for name, kept in result["checks"].items():
        if not kept:
            print(f"limit not kept: {name}", file=sys.stderr)
    if not result["passed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(cameras)
