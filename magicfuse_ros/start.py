# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Starts the programs of the package: every executable begins with one of these functions.

A program's modules take a second or more to import. Until they are there, Ctrl-C ends the process
as SIGTERM does, and a library that is missing or damaged is told in one line.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib import import_module

from magicfuse_ros.interrupt import end_without_traceback


def _start(module: str, name: str) -> None:
    before = end_without_traceback()
    try:
        program = getattr(import_module(module), name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "magicfuse_ros":  # a defect
            raise
        reason = " ".join(str(error).split())
        sys.exit(
            f"error: {reason}; {sys.executable} is not set up for this: use the Python of a "
            "virtual environment with requirements/vehicle.txt, also for colcon build; for "
            "the nodes, source ROS's setup.bash first (docs/vehicle.md)"
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        program()
    except KeyboardInterrupt:  # before the program was ready for it
        sys.exit(128 + signal.SIGINT)


magicfuse = partial(_start, "magicfuse_ros.cli", "app")
fuse_node = partial(_start, "magicfuse_ros.ros.fuse_node", "main")
fuse_cameras = partial(_start, "magicfuse_ros.ros.fuse_cameras", "main")
ground_cloud_node = partial(_start, "magicfuse_ros.ros.ground_cloud_node", "main")
play_node = partial(_start, "magicfuse_ros.ros.play_node", "main")
replay_node = partial(_start, "magicfuse_ros.ros.replay_node", "main")
