# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures the cost of `ground_cloud_node`: per calibration, per pose, and per mask.

python benchmarks/ground_cloud.py
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table
from std_msgs.msg import Header

from magicfuse_ros.navigation.camera_model import CameraModel
from magicfuse_ros.navigation.ground import CameraPose, GroundProjection, roles
from magicfuse_ros.ros.ground_cloud_node import cloud_message, scan_message

SIZES = ((640, 480), (1280, 720), (1920, 1080))
DISTORTION = (-0.31, 0.11, 0.001, -0.002, 0.0)
ROAD, BUILDING, SKY = 0, 1, 2


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of `repeats` calls, after one warm-up call."""
    work()
    times = []
    for _ in range(repeats):
        began = perf_counter()
        work()
        times.append(1000 * (perf_counter() - began))
    return median(times)


def main() -> None:
    """Print a table, medians in milliseconds."""
    names = ("calibration", "pose", "find", "cloud", "scan", "messages", "sum of a mask")
    table = Table("size", *names)
    for width, height in SIZES:
        k = (0.8 * width, 0, width / 2, 0, 0.8 * width, height / 2, 0, 0, 1)
        camera = CameraModel(height, width, k, "plumb_bob", DISTORTION)
        pose = CameraPose.from_tilt(1.5, 0.1, 0.0)
        rays = camera.rays()

        def project(rays: np.ndarray = rays, pose: CameraPose = pose) -> GroundProjection:
            return GroundProjection(rays, pose, max_range=15.0, increment=0.00873)

        ground = project()
        # A street: sky, houses on both sides that are closer towards the borders, road between
        # them.
        mask = np.full((height, width), ROAD, np.uint8)
        mask[: height // 3] = SKY
        for column in range(width):
            aside = abs(column - width / 2) / (width / 2)
            mask[height // 5 : round(height * (0.45 + 0.35 * aside)), column] = BUILDING
        table_of_roles = roles({ROAD: "road", BUILDING: "building", SKY: "sky"}, ["road"], ["sky"])
        seen = ground.find(mask, table_of_roles)
        cloud, scan, header = ground.cloud(seen), ground.scan(seen), Header()
        once = [milliseconds(camera.rays, 3), milliseconds(project, 5)]
        steps: tuple[Callable[[], object], ...] = (
            lambda: ground.find(mask, table_of_roles),  # noqa: B023
            lambda: ground.cloud(seen),  # noqa: B023
            lambda: ground.scan(seen),  # noqa: B023
            lambda: (cloud_message(cloud, header), scan_message(scan, header)),  # noqa: B023
        )
        every = [milliseconds(step, 50) for step in steps]
        figures = [*once, *every, sum(every)]
        table.add_row(f"{width}x{height}", *(f"{figure:.1f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
