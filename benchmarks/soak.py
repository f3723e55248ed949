# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Soak test: `fuse_node` with a 30 Hz camera and random faults, for any length of time.

make soak MINUTES=30      or: python benchmarks/soak.py --minutes 30 [--seed 1] [--json FILE]

A tiny bundle of real networks keeps up with the camera on two cores, so the age reflects the node
and not the networks. Faults: the camera pauses, sends bursts at 200 Hz and malformed, late and
repeated images, and changes size and encoding; a subscriber comes and goes; parameters change; the
node is deactivated and activated, and paused for half a second, so that queues overflow.
It passes if
- the node's memory grows by less than 10 MB after the warm-up (medians of a tenth of the time),
- no frame is published twice or out of order,
- every image is published, dropped, refused or lost by DDS according to the node's counters, none
  is lost by a defect, and every image counted as fused was received,
- the age, stamp to arrival at a subscriber, is under 3 camera periods for 99 of 100 frames.
The warm-up first uses all sizes and topics and fills all queues with the largest images, because
DDS keeps the memory of the largest image that each queue ever held. The test leaves soak.json and
soak.png in the output folder.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic, time_ns
from typing import Annotated, Any

import bench_rig as rig
import numpy as np
import psutil
import typer
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import Image

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.playback.children import end
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.session import Session

sys.path.insert(0, str(rig.ROOT / "test"))
from tiny_bundle import build

NAMESPACE = "/soak"
PERIOD_S = 1 / 30
FAULT_EVERY_S = (1.0, 4.0)
DRAIN_S = 20.0
SETTLE_S = 1.0
MOST_WARM_UP_S = 180.0  # by then, all kinds of faults have occurred several times
MAX_GROWTH_MB, MAX_PERIODS = 10.0, 3.0
SIZES = ((240, 320), (480, 640), (600, 800))
ENCODINGS = {"bgr8": 3, "rgb8": 3, "mono8": 1}


@dataclass
class Run:
    """The observations, for the report."""

    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    disorder: int = 0
    unaccounted: list[dict[str, int]] = field(default_factory=list)
    ages: list[tuple[float, float]] = field(default_factory=list)  # seconds, ms
    rss: list[tuple[float, float]] = field(default_factory=list)  # seconds, MB


class Soak:
    """Runs the camera and a subscriber, and causes the faults."""

    def __init__(self, session: Session, pid: int, seed: int, namespace: str = NAMESPACE) -> None:
        self.run = Run()
        self._name = name = f"{namespace}/fuse_node"
        self._session = session
        self._random = random.Random(seed)
        self._process = psutil.Process(pid)
        self._size, self._encoding = SIZES[1], "bgr8"
        self._sent = self._arrived = 0  # since the latest activation
        self._last_sent_ns = self._last_arrived_ns = 0
        self._silent_until = 0.0
        self.report: dict[str, str] = {}
        self._extra: Any = None
        node = session.node
        self._camera = node.create_publisher(Image, f"{namespace}/image_raw", qos.images())
        node.create_subscription(Image, f"{name}/mag_image", self._on_image, rig.DEEP, raw=True)
        rig.on_report(node, name, self._told)
        self._parameters = AsyncParameterClient(node, name)
        self._start = monotonic()

    def work(self, seconds: float) -> None:
        """Run for some time, then wait for the last image's result."""
        self.begin()
        self.go_on(seconds)

    def begin(self) -> None:
        """Wait for the node, and use all that it has once."""
        session = self._session
        connected = session.spin_until(lambda: self._camera.get_subscription_count() > 0, DRAIN_S)
        assert connected, "the node does not subscribe"
        session.spin_until(lambda: False, SETTLE_S)
        self._exercise()

    def go_on(self, seconds: float) -> None:
        """Cause faults for some time, then wait for the last image's result."""
        session = self._session
        self.run.ages.clear()
        self._start = due = next_rss = monotonic()
        next_fault = due + self._random.uniform(*FAULT_EVERY_S)
        while (now := monotonic()) < self._start + seconds:
            if now >= next_rss:
                self._measure_memory(now)
                next_rss += 1.0
            if now >= next_fault:
                self._fault()
                next_fault = monotonic() + self._random.uniform(*FAULT_EVERY_S)
                due = max(due, monotonic())
            if now >= self._silent_until:
                self._send()
            due = max(due + PERIOD_S, monotonic() + 0.002)  # late: still receive messages
            session.spin_until(lambda: False, due - monotonic())
        self._account()

    def _measure_memory(self, now: float) -> None:
        self.run.rss.append((now - self._start, self._process.memory_info().rss / 1e6))

    def _exercise(self) -> None:
        """Use all sizes with both topics, and fill the queues with the largest images."""
        self._subscriber()
        for size in SIZES:
            self._size = size
            for _ in range(60):
                self._send()
                self._session.spin_until(lambda: False, PERIOD_S)
        self._burst()
        self._hold_up()
        self._subscriber()
        self._size = SIZES[1]

    def _on_image(self, message: bytes) -> None:
        now_ns, stamp_ns = time_ns(), rig.stamp_of(message)
        self.run.disorder += stamp_ns <= self._last_arrived_ns
        self._last_arrived_ns = stamp_ns
        self._arrived += 1
        self.run.ages.append((monotonic() - self._start, (now_ns - stamp_ns) / 1e6))

    def _told(self, report: dict[str, str]) -> None:
        self.report = report

    def _send(self, message: Image | None = None, stamp_ns: int | None = None) -> None:
        message = message or self._image()
        stamp_ns = stamp_ns or max(time_ns(), self._last_sent_ns + 1)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        self._last_sent_ns = max(stamp_ns, self._last_sent_ns)
        self._camera.publish(message)
        self._sent += 1

    def _image(self) -> Image:
        (rows, columns), encoding = self._size, self._encoding
        step = columns * ENCODINGS[encoding]
        message = Image(encoding=encoding, height=rows, width=columns, step=step)
        message.data.frombytes(np.full(rows * step, self._sent % 256, np.uint8))
        return message

    def _fault(self) -> None:
        fault = self._random.choice(self._faults())
        self.run.faults[fault.__name__.strip("_")] += 1
        fault()

    def _faults(self) -> Sequence[Callable[[], None]]:
        return (
            self._pause, self._burst, self._malformed, self._late, self._twice, self._resize,
            self._reencode, self._subscriber, self._set_parameters, self._lifecycle, self._hold_up,
        )  # fmt: skip

    def _pause(self) -> None:
        self._silent_until = monotonic() + self._random.uniform(0.5, 3.0)

    def _burst(self) -> None:
        for _ in range(40):
            self._send()
            self._session.spin_until(lambda: False, 0.005)

    def _hold_up(self) -> None:
        """Stop the process for half a second, so that all its DDS queues fill."""
        self._process.suspend()
        for _ in range(15):
            self._send()
            self._session.spin_until(lambda: False, PERIOD_S)
        self._process.resume()

    def _malformed(self) -> None:
        message = self._image()
        kind = self._random.randrange(4)
        if kind == 0:
            del message.data[-100:]
        elif kind == 1:
            message.data.frombytes(bytes(100))
        elif kind == 2:
            message.height = message.width = message.step = 0
            del message.data[:]
        else:
            message.encoding = "32FC1"
        self._send(message)

    def _late(self) -> None:
        self._send(stamp_ns=self._last_sent_ns - 50_000_000)

    def _twice(self) -> None:
        self._send(stamp_ns=self._last_sent_ns)

    def _resize(self) -> None:
        self._size = self._random.choice(SIZES)

    def _reencode(self) -> None:
        self._encoding = self._random.choice(list(ENCODINGS))

    def _subscriber(self) -> None:
        node = self._session.node
        if self._extra is not None:
            node.destroy_subscription(self._extra)
            self._extra = None
        else:
            topic = f"{self._name}/segmentation/overlay"
            profile = qos.images()
            self._extra = node.create_subscription(Image, topic, lambda _: None, profile, raw=True)

    def _set_parameters(self) -> None:
        tau = Parameter("tau", value=self._random.random())
        steps = Parameter("steps", value=self._random.choice((0, 1, 2)))
        self._parameters.set_parameters([tau, steps])  # the answer arrives while images are sent

    def _lifecycle(self) -> None:
        """Deactivate and activate: the node's counters restart at 0."""
        self._account()
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            assert self._change_state(transition)
        self._restart()

    def _change_state(self, transition: int) -> bool:
        return self._session.change_state(self._name, transition, self._process.is_running, DRAIN_S)

    def _restart(self) -> None:
        """Wait until an activated node listens; its counters are at 0."""
        session = self._session
        session.spin_until(lambda: self._camera.get_subscription_count() > 0, DRAIN_S)
        session.spin_until(lambda: False, SETTLE_S)
        self._sent = self._arrived = 0

    def _account(self) -> None:
        """Wait until the counters add up, and add them to the run's."""

        def found() -> dict[str, int]:
            names = ("lost", "received", *rig.OUTCOMES)
            return {name: int(self.report.get(name, 0)) for name in names}

        def adds_up() -> bool:
            counts = found()
            outcomes = sum(counts[name] for name in rig.OUTCOMES)
            known = self._sent == counts["lost"] + counts["received"]
            return known and counts["received"] == outcomes and self._arrived == counts["fused"]

        ok = self._session.spin_until(adds_up, DRAIN_S)
        counts = {"sent": self._sent, "arrived": self._arrived, **found()}
        if not ok:
            self.run.unaccounted.append(counts)
        self.run.counts.update(counts)


def warm_up_s(seconds: float) -> float:
    """Return how much of the time is the warm-up."""
    return min(MOST_WARM_UP_S, seconds / 5)


def memory_mb(run: Run, seconds: float, parts: int = 10) -> dict[str, Any]:
    """Return the memory in MB: medians of equal parts of the time after the warm-up; growth."""
    warm_up = warm_up_s(seconds)
    length = (seconds - warm_up) / parts
    found: dict[int, list[float]] = {}
    for at, mb in run.rss:
        if at >= warm_up:
            found.setdefault(min(int((at - warm_up) / length), parts - 1), []).append(mb)
    medians = [median(found[number]) for number in sorted(found)]
    return {
        "early": medians[0],
        "late": medians[-1],
        "growth": medians[-1] - medians[0],
        "parts": [round(mb, 1) for mb in medians],
    }


def judge(run: Run, seconds: float) -> dict[str, Any]:
    """Return the results and whether each limit was kept."""
    memory = memory_mb(run, seconds)
    ages = {f"p{p}": float(np.percentile([ms for _, ms in run.ages], p)) for p in (50, 95, 99)}
    checks = {
        "memory": memory["growth"] < MAX_GROWTH_MB,
        "order": run.disorder == 0,
        "counts": not run.unaccounted and run.counts["failed"] == 0,
        "age": ages["p99"] < MAX_PERIODS * PERIOD_S * 1e3,
    }
    return {
        "passed": all(checks.values()),
        "checks": checks,
        "warm_up_s": warm_up_s(seconds),
        "rss_mb": memory,
        "age_ms": ages,
        "age_limit_ms": MAX_PERIODS * PERIOD_S * 1e3,
        "counts": dict(run.counts),
        "twice_or_out_of_order": run.disorder,
        "segments_that_do_not_add_up": run.unaccounted,
        "faults": dict(run.faults),
    }


def plot(run: Run, path: Path) -> None:
    """Draw memory and age over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="tight")
    memory, age = figure.subplots(2, 1, sharex=True)
    memory.plot(*zip(*run.rss, strict=True))
    memory.set_ylabel("memory of the node, MB")
    memory.set_ylim(bottom=0)
    age.plot(*zip(*run.ages, strict=True), ".", markersize=1)
    age.axhline(MAX_PERIODS * PERIOD_S * 1e3, color="gray", linewidth=0.8)
    age.set_ylabel("age on arrival, ms")
    age.set_xlabel("seconds")
    age.set_yscale("log")
    figure.savefig(path, dpi=100)


def soak(
    minutes: Annotated[float, typer.Option(min=0.5, help="How long.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/soak"),
    file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Run the soak test; exit with 1 if a limit was exceeded."""
    out = rig.output_folder(out)
    folder = out / f"bundle_{os.getpid()}"
    build(folder)
    with (
        rig.fuse_node(f"{NAMESPACE}/fuse_node", "image_raw", {"bundle": str(folder)}, out) as node,
        Session("soak") as session,
    ):
        work = Soak(session, node.pid, seed)
        work.work(minutes * 60)
        code = end(node)
    found = {
        **rig.head(Bundle.load(folder)),
        "minutes": minutes,
        "seed": seed,
        **judge(work.run, minutes * 60),
    }
    plot(work.run, out / "soak.png")
    rig.finish(found, code, out / "log", out / "soak.json", file)


if __name__ == "__main__":
    typer.run(soak)
