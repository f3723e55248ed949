# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Starts a fuse_node in each camera's namespace, all in one process that shares the networks.

ros2 launch magicfuse_ros cameras.launch.py cameras:=front,rear

subscribes to /front/image_raw and /rear/image_raw.
"""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction
from launch.launch_description_sources.python_launch_file_utilities import (
    load_python_launch_file_as_module,
)

common = load_python_launch_file_as_module(str(Path(__file__).with_name("common.py")))


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments."""
    arguments = common.declare(
        cameras=(None, "namespaces of the cameras, such as front,rear"),
        separate=(
            "false",
            "true: a process for each camera, with its own networks and share of the cores",
        ),
        image=("image_raw", "camera topic in each namespace"),
        threads=(
            "",
            "CPU threads for each frame; empty: half of the cores, or a separate process's share "
            "of them",
        ),
        namespace=("", "namespace that contains those of the cameras"),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=cameras)])


def cameras(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return fuse_cameras, or a fuse.launch.py for every camera."""
    given = common.value(context, "cameras")
    names = [name.strip() for name in given.split(",")]
    before = common.value(context, "namespace").rstrip("/")
    # Keep relative names relative: this file may be included in a robot's namespace.
    full = [f"{before}/{name}" if before and name[:1] != "/" else name for name in names]
    if not all(names) or len({name.lstrip("/") for name in full}) < len(full):
        raise RuntimeError(f"cameras is '{given}'; expected different names, such as front,rear")
    image = common.value(context, "image")
    if image.startswith("/") and len(full) > 1:
        raise RuntimeError(
            f"image is '{image}', one topic for all cameras; expected a name in each camera's "
            "namespace, such as image_raw"
        )
    if not common.flag(context, "separate"):
        parameters = {**common.fuse_parameters(context), "cameras": common.texts(names)}
        remappings = [("image", image)]
        return [
            common.managed_node(
                context, "fuse_cameras", "params_file", parameters, remappings, several=True
            )
        ]
    share = max(1, len(os.sched_getaffinity(0)) // len(names))
    threads = common.value(context, "threads") or str(share)
    return [
        common.fuse(common.passed_on(context, namespace=name, threads=threads)) for name in full
    ]
