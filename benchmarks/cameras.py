"""What several cameras cost: all in one process, and in turn with a process for each.

python benchmarks/cameras.py [2 4] [--load 0.88] [--rounds 3] [--json FILE] [--write]

All cameras together want `load` of the time of a frame, which is measured first: 4 cameras at 0.88
send 0.22 images in a frame time, each. They send 640x480 bgr8; MagImg and the mask of each are
subscribed to. The figures are those of the nodes' diagnostics and of the process table; medians of
the rounds. Camera and subscriber are one process on the same cores, and are not counted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median
from time import monotonic, perf_counter
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from bench_rig import ROOT, camera_image, fuse_node, stamp
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.playback.children import Process, child, isolate, parameter_file
from magicfuse_ros.playback.session import Session
from magicfuse_ros.ros import qos

BEGIN = "<!-- cameras: written by python benchmarks/cameras.py --write -->"
END = "<!-- /cameras -->"
START_S = 120.0
WARM_UP_S = 5.0
REPORT_S = 1.5  # longer than between two diagnostics
FRAMES = 40
WANTED = ("mag_image", "segmentation/mask")
ARRANGEMENTS = ("separate", "one process")


@dataclass(frozen=True)
class Row:
    """Figures of one arrangement; ages are means of its nodes, the rest is of all of them."""

    cameras: int
    arrangement: str
    frame_ms: float
    rate: float
    fused_percent: float
    age_p50_ms: float
    age_p95_ms: float
    cores: float
    rss_mb: float


def frame_ms(bundle: Path) -> float:
    """Return the median time of a frame on all cores, with nothing else running."""
    loaded = Bundle.load(bundle)
    fuser = Fuser(loaded, select("auto", bundle=loaded))
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    times = []
    for _ in range(FRAMES):
        start = perf_counter()
        fuser(image, ("mag_image", "mask"))
        times.append(1e3 * (perf_counter() - start))
    return median(times[FRAMES // 4 :])


@contextmanager
def nodes(
    arrangement: str, namespaces: list[str], bundle: Path, out: Path
) -> Iterator[list[Process]]:
    """Run a node for each namespace, which brings itself up to active; gives the processes."""
    with ExitStack() as stack:
        if arrangement == "separate":
            share = max(1, len(os.sched_getaffinity(0)) // len(namespaces))
            values: dict[str, Any] = {"bundle": str(bundle), "threads": share}
            yield [
                stack.enter_context(fuse_node(f"{name}/fuse_node", "image_raw", values, out))
                for name in namespaces
            ]
            return
        values = {"bundle": str(bundle), "autostart": True, "cameras": namespaces}
        arguments = ["-r", "image:=image_raw"]
        for file in (ROOT / "config" / "fuse.yaml", parameter_file(out / "cameras.yaml", values)):
            arguments += ["--params-file", str(file)]
        log = out / "log" / "cameras.txt"
        yield [stack.enter_context(child("fuse_cameras", arguments, log))]


def measure(
    arrangement: str, count: int, load: float, frame: float, seconds: float, bundle: Path, out: Path
) -> Row:
    """Run so many cameras together.

    Raises:
        MagicFuseError: if a node does not come up.
    """
    rate = 1e3 * load / count / frame
    namespaces = [f"/camera{number}" for number in range(count)]
    reports: dict[str, dict[str, str]] = {}

    def note(array: DiagnosticArray) -> None:
        (status,) = array.status
        reports[status.hardware_id] = {value.key: value.value for value in status.values}

    def values(key: str) -> list[float]:
        return [float(reports[f"{name}/fuse_node"][key]) for name in namespaces]

    with ExitStack() as stack:
        running = stack.enter_context(nodes(arrangement, namespaces, bundle, out))
        processes = [psutil.Process(process.pid) for process in running]
        session = stack.enter_context(Session("cameras"))
        node = session.node
        publishers = [
            node.create_publisher(Image, f"{name}/image_raw", qos.images()) for name in namespaces
        ]
        for name in namespaces:
            for topic in WANTED:
                full = f"{name}/fuse_node/{topic}"
                node.create_subscription(Image, full, lambda _: None, qos.images(), raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", note, 50)

        def connected() -> bool:
            return all(publisher.get_subscription_count() > 0 for publisher in publishers)

        if not session.spin_until(connected, START_S):
            raise MagicFuseError(f"not all of {count} nodes became active; see {out}/log")
        play(session, publishers, rate, WARM_UP_S)
        session.spin_until(lambda: False, REPORT_S)
        before, start = sum(values("fused")), monotonic()
        times = [process.cpu_times() for process in processes]
        sent = play(session, publishers, rate, seconds)
        wall = monotonic() - start
        used = [
            (now.user + now.system - then.user - then.system) / wall
            for then, now in zip(times, (p.cpu_times() for p in processes), strict=True)
        ]
        session.spin_until(lambda: False, REPORT_S)
        return Row(
            cameras=count,
            arrangement=arrangement,
            frame_ms=frame,
            rate=sent / count / wall,
            fused_percent=100 * (sum(values("fused")) - before) / sent,
            age_p50_ms=fmean(values("age_p50_ms")),
            age_p95_ms=fmean(values("age_p95_ms")),
            cores=sum(used),
            rss_mb=sum(p.memory_info().rss for p in processes) / 1e6,
        )


def play(session: Session, publishers: list[Any], rate: float, seconds: float) -> int:
    """Send an image to every node at a rate, one camera after the other within a period.

    Returns:
        How many images were sent.
    """
    message = camera_image(480, 640)
    sent = 0
    due = monotonic()
    end = due + seconds
    while due < end:
        for publisher in publishers:
            stamp(message)
            publisher.publish(message)
            sent += 1
            due = max(due + 1 / rate / len(publishers), monotonic() + 0.002)
            session.spin_until(lambda: False, due - monotonic())
    return sent


def medians(rows: list[Row]) -> Row:
    """Return the median of each figure."""
    figures = {field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)}
    arrangement = figures.pop("arrangement")[0]
    return Row(arrangement=arrangement, **{name: median(all_) for name, all_ in figures.items()})


def table(rows: list[Row]) -> str:
    """Return the rows in Markdown."""
    lines = [
        "| cameras | processes | frame, ms | images a second, each | fused | age p50 / p95, ms "
        "| age p95, frame times | cores | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        processes = row.cameras if row.arrangement == "separate" else 1
        lines.append(
            f"| {row.cameras} | {processes} | {row.frame_ms:.1f} | {row.rate:.1f} "
            f"| {row.fused_percent:.0f} % | {row.age_p50_ms:.0f} / {row.age_p95_ms:.0f} "
            f"| {row.age_p95_ms / row.frame_ms:.1f} | {row.cores:.2f} | {row.rss_mb:.0f} |"
        )
    return "\n".join(lines) + "\n"


def cameras(
    counts: Annotated[list[int] | None, typer.Argument(help="Cameras; 2 4 if omitted.")] = None,
    load: Annotated[float, typer.Option(help="Part of the time that all together want.")] = 0.88,
    seconds: Annotated[float, typer.Option(min=10.0, help="Of each measurement.")] = 30.0,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured, in turn.")] = 3,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the table of the docs.")] = False,
) -> None:
    """Measure and print the table."""
    out = (ROOT / "out" / "cameras").resolve()
    (out / "log").mkdir(parents=True, exist_ok=True)
    isolate(out)
    folder = (bundle or default_bundle()).resolve()
    measured: dict[tuple[int, str], list[Row]] = {}
    try:
        for _ in range(rounds):
            for count in counts or (2, 4):
                frame = frame_ms(folder)
                for arrangement in ARRANGEMENTS:
                    row = measure(arrangement, count, load, frame, seconds, folder, out)
                    measured.setdefault((count, arrangement), []).append(row)
    except MagicFuseError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    rows = [medians(measured[key]) for key in sorted(measured, reverse=True)]
    print(table(rows))
    if file is not None:
        all_rows = [asdict(row) for same in measured.values() for row in same]
        figures = {"load": load, "seconds": seconds, "rows": all_rows}
        file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if write:
        path = ROOT / "docs" / "cameras.md"
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
        path.write_text(f"{before}{BEGIN}\n{table(rows)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    typer.run(cameras)
