"""What 1, 2 and 4 cameras cost: one `fuse_node` a camera, the cores shared out among them.

python benchmarks/cameras.py [--rate 10] [--seconds 30] [--json FILE] [--write]

Every camera sends 640x480 bgr8 at the same rate; MagImg and the mask of each are subscribed to. The
figures are those of the nodes' diagnostics (their last 10 s, mean of the nodes) and of the process
table. Camera and subscriber are one process on the same cores, and are not counted.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from time import monotonic, time_ns
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from magicfuse_ros.bundle_path import default_bundle
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.children import child, isolate, parameter_file
from magicfuse_ros.ros.session import Session

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- cameras: written by python benchmarks/cameras.py --write -->"
END = "<!-- /cameras -->"
START_S = 120.0
WARM_UP_S = 5.0
WANTED = ("mag_image", "segmentation/mask")


@dataclass(frozen=True)
class Row:
    """Figures of one node, the mean of all that ran together."""

    cameras: int
    threads: int
    fps: float
    age_p50_ms: float
    age_p95_ms: float
    cores: float
    rss_mb: float


def measure(cameras: int, rate: float, seconds: float, bundle: Path, out: Path) -> Row:
    """Run so many nodes together.

    Raises:
        MagicFuseError: if a node does not come up.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // cameras)
    values = {"bundle": str(bundle), "threads": threads, "autostart": True}
    overrides = parameter_file(out / "fuse_node.yaml", values)
    reports: dict[str, dict[str, str]] = {}

    def note(array: DiagnosticArray) -> None:
        (status,) = array.status
        reports[status.hardware_id] = {value.key: value.value for value in status.values}

    with ExitStack() as stack:
        names = [f"/camera{number}" for number in range(cameras)]
        processes = []
        for name in names:
            arguments = ["-r", "__node:=fuse_node", "-r", f"__ns:={name}"]
            arguments += ["--params-file", str(ROOT / "config" / "fuse.yaml")]
            arguments += ["--params-file", str(overrides), "-r", "image:=image_raw"]
            log = out / "log" / f"{name.strip('/')}.txt"
            node = stack.enter_context(child("fuse_node", arguments, log))
            processes.append(psutil.Process(node.pid))
        session = stack.enter_context(Session("cameras"))
        node = session.node
        publishers = [
            node.create_publisher(Image, f"{name}/image_raw", qos.images()) for name in names
        ]
        for name in names:
            for topic in WANTED:
                full = f"{name}/fuse_node/{topic}"
                node.create_subscription(Image, full, lambda _: None, qos.images(), raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", note, 50)

        def connected() -> bool:
            return all(publisher.get_subscription_count() > 0 for publisher in publishers)

        if not session.spin_until(connected, START_S):
            raise MagicFuseError(f"not all of {cameras} nodes became active; see {out}/log")
        session.spin_until(lambda: False, 1.0)
        play(session, publishers, rate, WARM_UP_S)
        before, start = [process.cpu_times() for process in processes], monotonic()
        play(session, publishers, rate, seconds)
        wall = monotonic() - start
        used = [
            (now.user + now.system - then.user - then.system) / wall
            for then, now in zip(before, (p.cpu_times() for p in processes), strict=True)
        ]
        session.spin_until(lambda: False, 1.0)

        def mean(key: str) -> float:
            return round(fmean(float(reports[f"{name}/fuse_node"][key]) for name in names), 1)

        return Row(
            cameras=cameras,
            threads=threads,
            fps=mean("fps"),
            age_p50_ms=mean("age_p50_ms"),
            age_p95_ms=mean("age_p95_ms"),
            cores=round(fmean(used), 2),
            rss_mb=round(fmean(p.memory_info().rss for p in processes) / 1e6),
        )


def play(session: Session, publishers: list[Any], rate: float, seconds: float) -> None:
    """Send an image to every node at a rate, one camera after the other within a period."""
    message = Image(encoding="bgr8", height=480, width=640, step=1920)
    message.data.frombytes(np.random.default_rng(0).integers(0, 256, 480 * 1920, np.uint8))
    due = monotonic()
    end = due + seconds
    while due < end:
        for publisher in publishers:
            stamp = message.header.stamp
            stamp.sec, stamp.nanosec = divmod(time_ns(), 1_000_000_000)
            publisher.publish(message)
            due = max(due + 1 / rate / len(publishers), monotonic() + 0.002)
            session.spin_until(lambda: False, due - monotonic())


def table(rows: list[Row]) -> str:
    """Return the rows in Markdown."""
    lines = [
        "| cameras | threads a node | images a second | age p50 / p95, ms | cores a node "
        "| memory a node, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.cameras} | {row.threads} | {row.fps:.1f} | {row.age_p50_ms:.0f} / "
            f"{row.age_p95_ms:.0f} | {row.cores:.2f} | {row.rss_mb:.0f} |"
        )
    return "\n".join(lines) + "\n"


def cameras(
    counts: Annotated[list[int] | None, typer.Argument(help="Cameras; 1 2 4 if omitted.")] = None,
    rate: Annotated[float, typer.Option(help="Images a second of each camera.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=10.0, help="Of each measurement.")] = 30.0,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the table of the docs.")] = False,
) -> None:
    """Measure and print the table."""
    out = (ROOT / "out" / "cameras").resolve()
    (out / "log").mkdir(parents=True, exist_ok=True)
    isolate(out)
    folder = (bundle or default_bundle()).resolve()
    try:
        rows = [measure(count, rate, seconds, folder, out) for count in counts or (1, 2, 4)]
    except MagicFuseError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(table(rows))
    if file is not None:
        figures = {"rate": rate, "seconds": seconds, "rows": [asdict(row) for row in rows]}
        file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if write:
        path = ROOT / "docs" / "cameras.md"
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
        path.write_text(f"{before}{BEGIN}\n{table(rows)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    typer.run(cameras)
