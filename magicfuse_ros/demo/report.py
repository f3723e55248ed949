"""What the demo's bag holds, as figures, a side-by-side video and a contact sheet."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Image
from magicfuse_ros.media import Frame
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.contact_sheet import PANEL_WIDTH, EvenSample, contact_sheet
from magicfuse_ros.media.panels import panel_height, scale_to
from magicfuse_ros.media.png import write_png
from magicfuse_ros.media.side_by_side import SideBySideVideo
from magicfuse_ros.ros.statistics import percentiles

CAMERA = "/camera/image_raw"
NODE = "/fuse_node"
DIAGNOSTICS = "/diagnostics"
MAG_IMAGE = f"{NODE}/mag_image"
PANELS = (
    CAMERA,
    f"{NODE}/restored_image",
    f"{NODE}/thermal_estimate",
    MAG_IMAGE,
    f"{NODE}/segmentation/overlay",
)  # in the order of the panels' titles


@dataclass(frozen=True)
class Timing:
    """The fused frames of a bag.

    Attributes:
        fused: how many.
        fps: from the first to the last of them, 0 for fewer than two.
        age_ms: p50, p95 and p99 from the camera's stamp to the arrival of MagImg in the bag.
    """

    fused: int
    fps: float
    age_ms: dict[str, float]


def timing(bag: Path) -> Timing:
    """Read when MagImg came."""
    times, ages = [], []
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == MAG_IMAGE]
        for connection, time_ns, raw in reader.messages(connections) if connections else ():
            message: Any = reader.deserialize(raw, connection.msgtype)
            stamp = message.header.stamp
            times.append(time_ns)
            ages.append((time_ns - stamp.sec * 1_000_000_000 - stamp.nanosec) / 1e6)
    span_s = (times[-1] - times[0]) / 1e9 if times else 0.0
    fps = (len(times) - 1) / span_s if span_s else 0.0
    return Timing(len(times), fps, percentiles(ages))


def last_diagnostics(bag: Path) -> dict[str, str]:
    """Return the values of the node's last report, by key; empty if there is none."""
    values: dict[str, str] = {}
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == DIAGNOSTICS]
        for connection, _, raw in reader.messages(connections) if connections else ():
            message: Any = reader.deserialize(raw, connection.msgtype)
            values = {value.key: value.value for value in message.status[0].values}
    return values


def matched(bag: Path) -> Generator[list[Frame], None, None]:
    """Yield the frames of `PANELS` that have the same stamp.

    Raises:
        MediaError: if the bag cannot be read or lacks one of the topics.
    """
    sources = [iter(BagSource(bag, topic)) for topic in PANELS]
    frames: list[Frame | None] = [next(source, None) for source in sources]
    while all(frames):
        newest = max(frame.stamp_ns for frame in frames if frame)
        behind = [i for i, frame in enumerate(frames) if frame and frame.stamp_ns < newest]
        if not behind:
            yield [frame for frame in frames if frame]
            behind = list(range(len(frames)))
        for i in behind:
            frames[i] = next(sources[i], None)


def draw(bag: Path, out: Path, frame_rate: float, classes: Sequence[SemanticClass]) -> None:
    """Write `side_by_side.mp4` and `contact_sheet.png` into `out`.

    Raises:
        MediaError: if the bag cannot be read, has no frame with all panels, or a file cannot be
            written.
    """
    legend = [(c.name, c.color) for c in classes]
    sheet: EvenSample[tuple[str, list[Image]]] = EvenSample()
    start_ns: int | None = None
    with (
        closing(matched(bag)) as rows,
        SideBySideVideo(out / "side_by_side.mp4", frame_rate, legend=legend) as video,
    ):
        for frames in rows:
            images = [frame.image for frame in frames]
            stamp_ns = frames[0].stamp_ns
            start_ns = stamp_ns if start_ns is None else start_ns
            label = f"{(stamp_ns - start_ns) / 1e9:.2f} s"
            sheet.offer(partial(_row, label, images))
            video.write(images, stamp_ns)
    if not sheet.items():
        raise MediaError(f"no frame of '{bag}' came out on all of {', '.join(PANELS)}")
    write_png(out / "contact_sheet.png", contact_sheet(sheet.items(), legend=legend))


def _row(label: str, images: list[Image]) -> tuple[str, list[Image]]:
    # small copies: a sheet of large frames would fill the memory
    return label, [scale_to(i, PANEL_WIDTH, panel_height(i, PANEL_WIDTH)) for i in images]
