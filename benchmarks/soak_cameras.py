# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Soak test of several cameras in one process: random faults in one, the others lose nothing.

make soak CAMERAS=4 MINUTES=30
or: python benchmarks/soak_cameras.py --cameras 4 --minutes 30 [--seed 1] [--json FILE]

The first camera has the faults of soak.py and more: floods, a camera_info of another size or frame,
a node that is cleaned up and configured again with another bundle, backend, precision, fit or
threads, and a bundle that is not there. The others send 10 images a second to the same networks, a
tiny bundle that has time for all of them. It passes if
- the others lose nothing that the networks had time for: every image that one of them sent is
  received, and fused or replaced by its camera's next one; its result arrives once, in order, on
  the topic of its own camera; none is lost, refused, failed or idle, and the networks are never
  loaded again. An image may be replaced only in a second in which the first camera got no more
  images through than this one, as then the machine had no time for all (1 of 500 may be an
  exception, as the two nodes do not count the same second),
- 99 of 100 results of the others are published within 3 periods of their stamp (~/debug/age_ms;
  this process may be late in receiving them while it floods the first camera),
- the first camera's images are accounted for and in order, as in soak.py,
- the process's memory grows by less than 10 MB after the warm-up (medians of a third of the time,
  while the first camera has the others' networks),
- the process ends with exit code 0.
It prints the figures, leaves them in soak_cameras.json in the output folder, and exits with 1 if
one of these does not hold.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import psutil
import typer
from bench_rig import ROOT, START_S, finish, fuse_cameras, head, output_folder
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo
from soak import DRAIN_S, MAX_GROWTH_MB, SIZES, Soak, memory_mb, warm_up_s
from steady_camera import Steady, nothing_lost

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.playback.children import end
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.session import Session

sys.path.insert(0, str(ROOT / "test"))
from tiny_bundle import UNCERTAINTY, build

BACKENDS = ("auto", "onnxruntime")
FLOOD_HZ, FLOOD_S = 200.0, 2.0
PARTS = 3  # of the time, for the memory: it goes up and down with the first camera's queues
QUEUE = 15  # images, more than a node's queue holds


class Faulty(Soak):
    """The camera with the faults."""

    def __init__(
        self, session: Session, pid: int, seed: int, namespace: str, bundles: Sequence[Path]
    ) -> None:
        super().__init__(session, pid, seed, namespace)
        self._bundles = bundles
        self._usual: dict[str, Any] = {
            "bundle": str(bundles[0]),
            **{"backend": "auto", "precision": "auto", "fit": "letterbox", "threads": 0},
        }
        self._unusual = False
        node = session.node
        self._infos = node.create_publisher(CameraInfo, f"{namespace}/camera_info", qos.images())
        topic = f"{self._name}/camera_info"
        node.create_subscription(CameraInfo, topic, lambda _: None, qos.images(), raw=True)

    def _exercise(self) -> None:
        for bundle in self._bundles:
            for backend in BACKENDS:
                for threads in (0, 1):
                    self._configure_with(bundle=str(bundle), backend=backend, threads=threads)
        self._configure_with(**self._usual)
        super()._exercise()  # last, as a node that was just configured has empty queues

    def _faults(self) -> Sequence[Callable[[], None]]:
        others = [fault for fault in super()._faults() if fault != self._hold_up]
        return (*others, self._flood, self._camera_info, self._reconfigure, self._no_bundle)

    def _fault(self) -> None:
        if self._unusual:
            self._unusual = False
            self._configure_with(**self._usual)
        else:
            super()._fault()

    def _measure_memory(self, now: float) -> None:
        if not self._unusual:  # other networks need other memory
            super()._measure_memory(now)

    def _flood(self) -> None:
        end = monotonic() + FLOOD_S
        due = monotonic()
        while due < end:
            self._send()
            due = max(due + 1 / FLOOD_HZ, monotonic() + 0.001)
            self._session.spin_until(lambda: False, due - monotonic())

    def _camera_info(self) -> None:
        rows, columns = self._random.choice(SIZES)
        frame = self._random.choice(("", "front", "rear"))
        for _ in range(self._random.choice((1, 50))):
            message = CameraInfo(height=rows, width=columns)
            message.header.frame_id = frame
            self._infos.publish(message)

    def _reconfigure(self) -> None:
        choose = self._random.choice
        self._unusual = True
        self._configure_with(
            bundle=str(choose(self._bundles)),
            backend=choose(BACKENDS),
            precision=choose(("auto", "fp32")),
            fit=choose(("letterbox", "stretch")),
            threads=choose((0, 1)),
        )

    def _no_bundle(self) -> None:
        self._clean_up()
        self._set(bundle="/no/such/bundle")
        assert not self._change_state(Transition.TRANSITION_CONFIGURE), "it has no bundle"
        self._configure(**self._usual)

    def _configure_with(self, **values: Any) -> None:
        self._clean_up()
        self._configure(**values)

    def _clean_up(self) -> None:
        self._account()
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            assert self._change_state(transition)

    def _configure(self, **values: Any) -> None:
        self._set(**values)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert self._change_state(transition)
        self._restart()

    def _set(self, **values: Any) -> None:
        given = [Parameter(name, value=value) for name, value in values.items()]
        answer = self._parameters.set_parameters(given)
        assert self._session.spin_until(answer.done, DRAIN_S)
        refused = [result.reason for result in answer.result().results if not result.successful]
        assert not refused, refused


def fill_queues(session: Session, pid: int, others: Sequence[Steady]) -> None:
    """Fill the queues of the nodes: DDS keeps the memory of all that they ever held."""
    process = psutil.Process(pid)
    process.suspend()
    for _ in range(QUEUE):
        for one in others:
            one.send()
        session.spin_until(lambda: False, 0.02)
    process.resume()


def judge(faulty: Soak, others: Sequence[Steady], seconds: float) -> dict[str, Any]:
    """Return the results and whether each limit was kept."""
    run = faulty.run
    memory = memory_mb(run, seconds, PARTS)
    found = {one.name: one.figures() for one in others}
    checks = {
        "memory": memory["growth"] < MAX_GROWTH_MB,
        "the others lose nothing": all(nothing_lost(one) for one in found.values()),
        "age of the others": all(
            one["age_ms"]["p99"] < one["age_limit_ms"] for one in found.values()
        ),
        "order": run.disorder == 0,
        "counts": not run.unaccounted and run.counts["failed"] == 0,
    }
    return {
        "passed": all(checks.values()),
        "checks": checks,
        "warm_up_s": warm_up_s(seconds),
        "rss_mb": memory,
        "others": found,
        "faults": dict(run.faults),
        "counts": dict(run.counts),
        "twice_or_out_of_order": run.disorder,
        "segments_that_do_not_add_up": run.unaccounted,
    }


def soak(
    cameras: Annotated[int, typer.Option(min=2, help="One of them has the faults.")] = 4,
    minutes: Annotated[float, typer.Option(min=0.5, help="How long.")] = 30.0,
    rate: Annotated[float, typer.Option(min=1.0, help="Images a second of the others.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/soak"),
    file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Run the soak test; exit with 1 if a limit was exceeded."""
    out = output_folder(out)
    bundles = [out / f"bundle_{kind}_{os.getpid()}" for kind in ("a", "b")]
    build(bundles[0])
    build(bundles[1], UNCERTAINTY)
    namespaces = [f"/camera{number}" for number in range(cameras)]
    values = {"bundle": str(bundles[0])}
    with (
        fuse_cameras(namespaces, "image_raw", values, out) as process,
        Session("soak") as session,
    ):
        faulty = Faulty(session, process.pid, seed, namespaces[0], bundles)
        others = [Steady(session, namespace, rate, faulty) for namespace in namespaces[1:]]
        came = session.spin_until(lambda: all(one.connected() for one in others), START_S)
        assert came, "not all nodes became active"
        faulty.begin()
        for one in others:
            one.stop()
        fill_queues(session, process.pid, others)

        def settled() -> bool:
            return all(one.settled() for one in others)

        session.spin_until(settled, DRAIN_S)
        for one in others:
            one.go_on()
        faulty.go_on(minutes * 60)
        for one in others:
            one.stop()
        session.spin_until(lambda: settled() and all(one.complete() for one in others), DRAIN_S)
        code = end(process)
    found = {
        **head(Bundle.load(bundles[0])),
        "minutes": minutes,
        "seed": seed,
        "cameras": cameras,
        "rate": rate,
        **judge(faulty, others, minutes * 60),
    }
    finish(found, code, out / "log", out / "soak_cameras.json", file)


if __name__ == "__main__":
    typer.run(soak)
