# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Shows the content of the demo's bag as a side-by-side video and a contact sheet."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media import Frame
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.contact_sheet import PANEL_WIDTH, EvenSample, contact_sheet
from magicfuse_ros.media.panels import PANEL_TITLES, PanelPage, panel_height, scale_to
from magicfuse_ros.media.video_writer import VideoWriter
from magicfuse_ros.output_files import write_png
from magicfuse_ros.topics import MAG_IMAGE, NODE, OVERLAY

VIDEO_PANEL_WIDTH = 368  # five panels make a page about 1920 pixels wide
CAMERA = "/camera/image_raw"
PANELS = (
    CAMERA,
    f"{NODE}/restored_image",
    f"{NODE}/thermal_estimate",
    f"{NODE}/{MAG_IMAGE}",
    f"{NODE}/{OVERLAY}",
)  # in the order of the panels' titles


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
    sheet: EvenSample[tuple[str, list[Pixels]]] = EvenSample()
    start_ns: int | None = None
    page: PanelPage | None = None
    with (
        closing(matched(bag)) as rows,
        VideoWriter(out / "side_by_side.mp4", frame_rate) as video,
    ):
        for frames in rows:
            images = [frame.image for frame in frames]
            stamp_ns = frames[0].stamp_ns
            start_ns = stamp_ns if start_ns is None else start_ns
            label = f"{(stamp_ns - start_ns) / 1e9:.2f} s"
            sheet.offer(partial(_row, label, images))
            if page is None:
                size = (VIDEO_PANEL_WIDTH, panel_height(images[0], VIDEO_PANEL_WIDTH))
                page = PanelPage(PANEL_TITLES, size, legend=legend)
            video.write(page.render([images]), stamp_ns)
    if not sheet.items():
        raise MediaError(f"no frame of '{bag}' came out on all of {', '.join(PANELS)}")
    write_png(out / "contact_sheet.png", contact_sheet(sheet.items(), legend=legend))


def _row(label: str, images: list[Pixels]) -> tuple[str, list[Pixels]]:
    # small copies, because a sheet of large frames would fill the memory
    return label, [scale_to(i, PANEL_WIDTH, panel_height(i, PANEL_WIDTH)) for i in images]
