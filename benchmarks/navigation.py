# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Draws the results of `ground_cloud_node` for one frame: mask, cloud and scan from above.

python benchmarks/navigation.py --out docs/navigation.jpg
"""

from __future__ import annotations

from itertools import islice
from math import atan, cos, degrees, radians, sin, tan
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
import typer

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle, SemanticClass
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.demo.__main__ import street_video
from magicfuse_ros.errors import MediaError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.media import open_source
from magicfuse_ros.navigation.camera_model import CameraModel
from magicfuse_ros.navigation.ground import CameraPose, GroundProjection, Scan, roles
from magicfuse_ros.overlay import overlay, with_legend
from magicfuse_ros.parameters import GroundParameters

Picture = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
_BACK: Color = (24, 26, 31)
_GRID: Color = (74, 80, 92)
_BRIGHT: Color = (236, 238, 242)
_GAP = 8
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(
    video: Annotated[
        Path | None, typer.Argument(help="Video, picture or folder; else the demo's street video.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("out/navigation.jpg"),
    frame: Annotated[int, typer.Option(min=0, help="Number of the frame.")] = 215,
    view: Annotated[float, typer.Option(help="Horizontal field of view, degrees.")] = 53.0,
    height: Annotated[float, typer.Option(help="Of the camera, metres.")] = 0.7,
    pitch: Annotated[float, typer.Option(help="Of the camera, degrees; positive is down.")] = 5.0,
    max_range: Annotated[float, typer.Option(help="Metres.")] = 6.0,
) -> None:
    """Draw one frame. The camera defaults were fitted by eye to frame 215 of the street video."""
    source = open_source(video or street_video())
    found = next(islice(source, frame, None), None)
    if found is None:
        raise MediaError(f"frame is {frame}; '{source.name}' has fewer")
    bundle = Bundle.load(default_bundle())
    classes = bundle.manifest.classes
    fused = Fuser(bundle, select("auto", bundle=bundle))(
        found.image, frozenset({"mag_image", "mask"})
    )
    assert fused.mask is not None and fused.mag_image is not None

    rows, columns = fused.mask.shape
    f = columns / 2 / tan(radians(view) / 2)
    matrix = (f, 0, (columns - 1) / 2, 0, f, (rows - 1) / 2, 0, 0, 1)
    camera = CameraModel(rows, columns, matrix)
    pose = CameraPose.from_tilt(height, radians(pitch), 0.0)
    values = GroundParameters()
    ground = GroundProjection(
        camera.rays(), pose, max_range=max_range, increment=values.scan_increment
    )
    names = {c.id: c.name for c in classes}
    seen = ground.find(fused.mask, roles(names, values.ground_classes, values.passable_classes))
    cloud = ground.cloud(seen)
    kept = np.isfinite(cloud["z"])
    optical = np.stack([cloud[axis][kept] for axis in "xyz"], axis=-1)
    places = optical.astype(np.float64) @ pose.matrix().T + pose.position

    shown = with_legend(overlay(fused.mag_image, fused.mask, classes), classes)
    left = np.vstack([found.image, np.full((_GAP, columns, 3), _BACK, np.uint8), shown])
    side = left.shape[0]
    half_view = atan(columns / 2 / f)
    above = _from_above(
        places, cloud["label"][kept], classes, ground.scan(seen), max_range, half_view, side
    )
    page = np.hstack([left, np.full((side, _GAP, 3), _BACK, np.uint8), above])
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), cv2.cvtColor(page, cv2.COLOR_RGB2BGR)):
        raise MediaError(f"cannot write '{out}'")


def _from_above(
    places: npt.NDArray[np.float64],
    labels: npt.NDArray[np.uint32],
    classes: list[SemanticClass],
    scan: Scan,
    max_range: float,
    half_view: float,
    side: int,
) -> Picture:
    """Return a square map with the camera in the middle of the lower edge, looking up."""
    picture = np.full((side, side, 3), _BACK, np.uint8)
    bottom = side - 24
    scale = (bottom - 30) / max_range

    def pixel(x: float, y: float) -> tuple[int, int]:
        return round(side / 2 - y * scale), round(bottom - x * scale)

    palette = np.zeros((256, 3), np.uint8)
    for c in classes:
        palette[c.id] = c.color
    for (x, y, _), color in zip(places, palette[labels], strict=True):
        cv2.circle(picture, pixel(x, y), 1, tuple(map(int, color)), cv2.FILLED)

    opening = degrees(half_view)
    for metres in range(1, int(max_range) + 1):
        radius = round(metres * scale)
        cv2.ellipse(
            picture, pixel(0, 0), (radius, radius), -90, -opening, opening, _GRID, 1, cv2.LINE_AA
        )
        x, y = pixel(metres * cos(half_view), -metres * sin(half_view))
        cv2.putText(picture, f"{metres} m", (x + 5, y), _FONT, 0.42, _BRIGHT, 1, cv2.LINE_AA)
    for turn in (-half_view, half_view):
        end = pixel(max_range * cos(turn), max_range * sin(turn))
        cv2.line(picture, pixel(0, 0), end, _GRID, 1, cv2.LINE_AA)

    angles = scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges))
    for angle, distance in zip(angles, scan.ranges, strict=True):
        if np.isfinite(distance):
            place = pixel(distance * cos(angle), distance * sin(angle))
            cv2.circle(picture, place, 3, _BRIGHT, cv2.FILLED, cv2.LINE_AA)
    cv2.circle(picture, pixel(0, 0), 6, _BRIGHT, 2, cv2.LINE_AA)
    cv2.putText(
        picture, "camera", (side // 2 + 14, bottom + 5), _FONT, 0.45, _BRIGHT, 1, cv2.LINE_AA
    )
    title = "ground cloud, in the classes' colours, and scan, white"
    cv2.putText(picture, title, (10, 20), _FONT, 0.48, _BRIGHT, 1, cv2.LINE_AA)
    return picture


if __name__ == "__main__":
    typer.run(draw)
