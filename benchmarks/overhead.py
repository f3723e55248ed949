# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Compares the node's overhead over the fuser with a bare publisher of the same two messages.

python benchmarks/overhead.py [--frames 200] [--json FILE]

One image at a time goes to `fuse_node`, or to one after the other of 4 cameras in a process,
followed by requests to a node that only publishes two messages of the same sizes
(bare_publisher.py). They take turns, so other load on the machine affects all of them. One process
sends the requests and subscribes to MagImg and mask of all nodes in the same way. The senders
measure the times:

    overhead    ~/debug/cost_ms - ~/debug/stage_ms/total: from taking the camera's message to the
                end of the last publication, without the fuser: decoding, planning, encoding,
                publishing. The input checks run afterwards and take about 0.2 ms.
    bare        two new messages, filled from arrays and published
    same        two messages, made in advance and published repeatedly
    serialised  two new messages, given to rclpy as bytes

The CPU times are for a busy machine: those of the bare publisher, and that of the node's whole
process for an image, with the networks (`--bundle` of networks that cost little shows the rest).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import bench_rig as rig
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, Header

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.playback.children import Process, end
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.session import Session

SIZES = {(640, 480): 5.0, (1920, 1080): 20.0}  # width, height: limit of the overhead, ms
MOST_TIMES = 1.5  # times the bare publisher's time
WARM_UP = 20  # frames
FRAME_S = 30.0
CAMERAS = (1, 4)
COST, TOTAL = "debug/cost_ms", "debug/stage_ms/total"
FROM_NODE = ("mag_image", "segmentation/mask", COST, TOTAL)
BARE, BARE_CPU = "/bare/cost_ms", "/bare/cpu_ms"
FROM_BARE = ("/bare/mag_image", "/bare/mask", BARE, BARE_CPU)
REQUESTS = ("new", "same", "serialised")


@contextmanager
def bare_publisher(width: int, height: int, log: Path) -> Iterator[Process]:
    """Run bare_publisher.py."""
    size = ["-p", f"width:={width}", "-p", f"height:={height}"]
    command = [sys.executable, str(Path(__file__).with_name("bare_publisher.py")), "--ros-args"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *size], stdout=file, stderr=file, text=True, start_new_session=True
        )
        try:
            yield process
        finally:
            end(process)


class Turns:
    """Sends requests to all nodes in turn and receives their messages.

    Attributes:
        arrived: contents of the received messages by topic; None for images.
    """

    def __init__(
        self, session: Session, processes: Sequence[Process], namespaces: Sequence[str]
    ) -> None:
        """Wait until all processes know of each other.

        Raises:
            MagicFuseError: if a process does not come up.
        """
        self._of_node = {
            namespace: tuple(f"{namespace}/fuse_node/{topic}" for topic in FROM_NODE)
            for namespace in namespaces
        }
        topics = (*(topic for found in self._of_node.values() for topic in found), *FROM_BARE)
        self.arrived: dict[str, list[float | None]] = {topic: [] for topic in topics}
        self._session = session
        node = session.node
        self._cameras = {
            namespace: node.create_publisher(Image, f"{namespace}/image_raw", qos.images())
            for namespace in namespaces
        }
        self._go = node.create_publisher(Header, "/bare/go", 10)
        for topic, values in self.arrived.items():
            self._subscribe(topic, values)

        def ready() -> bool:
            known = all(node.count_publishers(topic) > 0 for topic in self.arrived)
            senders = (*self._cameras.values(), self._go)
            return known and all(sender.get_subscription_count() for sender in senders)

        rig.wait_until(ready, session, processes, "the nodes did not come up")

    def _subscribe(self, topic: str, values: list[float | None]) -> None:
        create = self._session.node.create_subscription
        if topic.endswith(("_ms", TOTAL)):
            create(Float32, topic, lambda message: values.append(message.data), 10)
        else:  # raw: no sender is to blame for the time that Python objects of images take
            create(Image, topic, lambda _: values.append(None), qos.images(), raw=True)

    def fuse(self, image: Image) -> None:
        """Let one `fuse_node` after the other fuse an image, and wait for all its results."""
        for namespace, camera in self._cameras.items():
            rig.stamp(image)
            self._ask(camera, image, self._of_node[namespace])

    def figures(self, topic: str) -> np.ndarray:
        """Return what all `fuse_node`s said on a topic after the warm-up."""
        names = [f"{namespace}/fuse_node/{topic}" for namespace in self._of_node]
        return np.array([self.arrived[name][WARM_UP:] for name in names], np.float64).ravel()

    def publish(self, what: str) -> None:
        """Let the other node publish; `what` is one of `REQUESTS`."""
        self._ask(self._go, Header(frame_id=what), FROM_BARE)

    def _ask(self, publisher: Any, message: Any, topics: tuple[str, ...]) -> None:
        before = [len(self.arrived[topic]) for topic in topics]

        def answered() -> bool:
            return all(
                len(self.arrived[topic]) > n for topic, n in zip(topics, before, strict=True)
            )

        publisher.publish(message)
        if not self._session.spin_until(answered, FRAME_S):
            raise MagicFuseError(f"no answer to a message on {publisher.topic_name}")


def measure(
    width: int, height: int, cameras: int, frames: int, bundle: Path, out: Path
) -> dict[str, Any]:
    """Return the figures of one size and count of cameras.

    Raises:
        MagicFuseError: if a process does not come up, or does not answer.
    """
    namespaces = [f"/overhead{number}" for number in range(cameras)]
    values = {"bundle": str(bundle)}
    with ExitStack() as stack:
        node = (
            rig.fuse_node(f"{namespaces[0]}/fuse_node", "image_raw", values, out)
            if cameras == 1
            else rig.fuse_cameras(namespaces, "image_raw", values, out)
        )
        fuse = stack.enter_context(node)
        bare = stack.enter_context(bare_publisher(width, height, out / "log" / "bare.txt"))
        turns = Turns(stack.enter_context(Session("overhead")), (fuse, bare), namespaces)
        image = rig.camera_image(height, width)
        process, cpu_s = psutil.Process(fuse.pid), 0.0
        for number in range(WARM_UP + frames):
            before = sum(process.cpu_times()[:2])
            turns.fuse(image)
            cpu_s += (sum(process.cpu_times()[:2]) - before) * (number >= WARM_UP)
            for request in REQUESTS:
                turns.publish(request)
    total = turns.figures(TOTAL)
    overhead = turns.figures(COST) - total

    def of_bare(topic: str) -> np.ndarray:
        skipped = len(REQUESTS) * WARM_UP
        each: np.ndarray = np.array(turns.arrived[topic][skipped:]).reshape(-1, len(REQUESTS)).T
        return each

    new, same, serialised = of_bare(BARE)
    limit, median = SIZES[width, height], float(np.median(overhead))
    times_bare = median / float(np.median(new))
    return {
        "width": width,
        "height": height,
        "cameras": cameras,
        "frames": frames,
        "fuser_ms": rig.quantiles(total),
        "overhead_ms": rig.quantiles(overhead),
        "bare_ms": rig.quantiles(new),
        "same_ms": rig.quantiles(same),
        "serialised_ms": rig.quantiles(serialised),
        "node_cpu_ms": round(1e3 * cpu_s / frames / cameras, 2),
        "bare_cpu_ms": {
            request: rig.quantiles(cpu)["median"]
            for request, cpu in zip(REQUESTS, of_bare(BARE_CPU), strict=True)
        },
        "times_bare": round(times_bare, 2),
        "times_same": round(median / float(np.median(same)), 2),
        "limit_ms": limit,
        "limit_times_bare": MOST_TIMES,
        "passed": median <= limit and times_bare <= MOST_TIMES,
    }


def overhead(
    frames: Annotated[int, typer.Option(min=10, help="Of each size.")] = 200,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Measure and print the table; exit with 1 if a limit is exceeded."""
    out = rig.output_folder(rig.ROOT / "out" / "overhead")
    used = rig.load(bundle)
    with rig.errors_in_one_line(out):
        sizes = [
            measure(*size, cameras, frames, used.root, out) for cameras in CAMERAS for size in SIZES
        ]
    table = Table("median, ms", "fuser", "overhead", "limit", "bare", "times", "same", "times")
    table.add_column("serialised")
    cpu = Table("CPU time, ms", "node, with its networks", *REQUESTS)
    for row in sizes:
        name = f"{row['cameras']} x {row['width']}x{row['height']}"
        table.add_row(
            name,
            *(f"{row[name]['median']:.1f}" for name in ("fuser_ms", "overhead_ms")),
            f"{row['limit_ms']:.0f}",
            *(
                f"{figure:.2f}"
                for what in ("bare", "same")
                for figure in (row[f"{what}_ms"]["median"], row[f"times_{what}"])
            ),
            f"{row['serialised_ms']['median']:.2f}",
        )
        times = (row["node_cpu_ms"], *row["bare_cpu_ms"].values())
        cpu.add_row(name, *(f"{ms:.2f}" for ms in times))
    for found in (table, cpu):
        Console().print(found)
    rig.write({**rig.head(used), "sizes": sizes}, file)
    if not all(row["passed"] for row in sizes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(overhead)
