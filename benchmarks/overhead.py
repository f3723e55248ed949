"""Compares the node's overhead over the fuser with a bare publisher of the same two messages.

python benchmarks/overhead.py [--frames 200] [--json FILE]

One image at a time goes to `fuse_node`, followed by two requests to a node that only publishes two
messages of the same sizes (bare_publisher.py). They take turns, so other load on the machine
affects all of them. One process sends the requests and subscribes to MagImg and mask of both nodes
in the same way. The senders measure the times:

    overhead    ~/debug/cost_ms - ~/debug/stage_ms/total: from taking the camera's message to the
                end of the last publication, without the fuser: decoding, planning, encoding,
                publishing. The input checks run afterwards and take about 0.2 ms.
    bare        two new messages, filled from arrays and published
    same        two messages, made in advance and published repeatedly
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from bench_rig import ROOT, camera_image, fuse_node, head, quantiles, stamp
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, Header

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.playback.children import Process, end, isolate
from magicfuse_ros.playback.session import Session
from magicfuse_ros.ros import qos

SIZES = {(640, 480): 5.0, (1920, 1080): 20.0}  # width, height: limit of the overhead, ms
MOST_TIMES = 1.5  # times the bare publisher's time
WARM_UP = 20  # frames
START_S, FRAME_S = 120.0, 30.0
NODE, CAMERA = "/overhead/fuse_node", "/overhead/image_raw"
COST, TOTAL, BARE = f"{NODE}/debug/cost_ms", f"{NODE}/debug/stage_ms/total", "/bare/cost_ms"
FROM_NODE = (f"{NODE}/mag_image", f"{NODE}/segmentation/mask", COST, TOTAL)
FROM_BARE = ("/bare/mag_image", "/bare/mask", BARE)
TIMES = (COST, TOTAL, BARE)  # topics with times; the others carry images


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
    """Sends requests to both nodes in turn and receives their messages.

    Attributes:
        arrived: contents of the received messages by topic; None for images.
    """

    def __init__(self, session: Session, processes: Sequence[Process]) -> None:
        """Wait until all processes know of each other.

        Raises:
            MagicFuseError: if a process does not come up.
        """
        self.arrived: dict[str, list[float | None]] = {t: [] for t in (*FROM_NODE, *FROM_BARE)}
        self._session = session
        node = session.node
        self._camera = node.create_publisher(Image, CAMERA, qos.images())
        self._go = node.create_publisher(Header, "/bare/go", 10)
        for topic, values in self.arrived.items():
            self._subscribe(topic, values)

        def ready() -> bool:
            known = all(node.count_publishers(topic) > 0 for topic in self.arrived)
            return known and all(p.get_subscription_count() for p in (self._camera, self._go))

        def over() -> bool:
            return any(process.poll() is not None for process in processes)

        if not session.spin_until(lambda: ready() or over(), START_S) or over():
            raise MagicFuseError("the nodes did not come up")
        session.spin_until(lambda: False, 1.0)  # they may not know of the subscribers yet

    def _subscribe(self, topic: str, values: list[float | None]) -> None:
        create = self._session.node.create_subscription
        if topic in TIMES:
            create(Float32, topic, lambda message: values.append(message.data), 10)
        else:  # raw: no sender is to blame for the time that Python objects of images take
            create(Image, topic, lambda _: values.append(None), qos.images(), raw=True)

    def fuse(self, image: Image) -> None:
        """Let `fuse_node` fuse an image, and wait for all results."""
        stamp(image)
        self._ask(self._camera, image, FROM_NODE)

    def publish(self, what: str) -> None:
        """Let the other node publish "new" messages or the "same" ones."""
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


def measure(width: int, height: int, frames: int, bundle: Path, out: Path) -> dict[str, Any]:
    """Return the figures of one size.

    Raises:
        MagicFuseError: if a process does not come up, or does not answer.
    """
    with ExitStack() as stack:
        fuse = stack.enter_context(fuse_node(NODE, CAMERA, {"bundle": str(bundle)}, out))
        bare = stack.enter_context(bare_publisher(width, height, out / "log" / "bare.txt"))
        turns = Turns(stack.enter_context(Session("overhead")), (fuse, bare))
        image = camera_image(height, width)
        for _ in range(WARM_UP + frames):
            turns.fuse(image)
            turns.publish("new")
            turns.publish("same")
    cost, total = (np.array(turns.arrived[topic][WARM_UP:]) for topic in (COST, TOTAL))
    new, same = np.array(turns.arrived[BARE][2 * WARM_UP :]).reshape(-1, 2).T
    overhead = cost - total
    limit, median = SIZES[width, height], float(np.median(overhead))
    times_bare = median / float(np.median(new))
    return {
        "width": width,
        "height": height,
        "frames": frames,
        "fuser_ms": quantiles(total),
        "overhead_ms": quantiles(overhead),
        "bare_ms": quantiles(new),
        "same_ms": quantiles(same),
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
    out = ROOT / "out" / "overhead"
    (out / "log").mkdir(parents=True, exist_ok=True)
    isolate(out)
    used = Bundle.load((bundle or default_bundle()).resolve())
    try:
        sizes = [measure(*size, frames, used.root, out) for size in SIZES]
    except MagicFuseError as error:
        print(f"error: {error}; see {out}/log", file=sys.stderr)
        raise typer.Exit(2) from error
    table = Table("median, ms", "fuser", "overhead", "limit", "bare", "times", "same", "times")
    for row in sizes:
        table.add_row(
            f"{row['width']}x{row['height']}",
            *(f"{row[name]['median']:.1f}" for name in ("fuser_ms", "overhead_ms")),
            f"{row['limit_ms']:.0f}",
            *(
                f"{figure:.2f}"
                for what in ("bare", "same")
                for figure in (row[f"{what}_ms"]["median"], row[f"times_{what}"])
            ),
        )
    Console().print(table)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        figures = {**head(used), "sizes": sizes}
        file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not all(row["passed"] for row in sizes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(overhead)
