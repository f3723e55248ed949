# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Plays a bag's camera into fuse_node, with /clock, and ends with the bag.

ros2 launch magicfuse_ros replay.launch.py bag:=drive.mcap
"""

import json
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessExited, ProcessIO
from launch.launch_description_sources.python_launch_file_utilities import (
    load_python_launch_file_as_module,
)
from launch_ros.actions import Node

common = load_python_launch_file_as_module(str(Path(__file__).with_name("common.py")))

FROM_THE_BAG = ("image", "image_transport", "use_sim_time")
_PUSHED = "ros_namespace"  # where launch_ros keeps the namespace of PushRosNamespace
NUMBERS = ("rate", "start", "duration")


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments."""
    arguments = common.declare(
        omit=FROM_THE_BAG,
        bag=(None, "rosbag2: folder, .mcap or .db3"),
        topic=("", "image topic, if the bag has several"),
        rate=("1.0", "playback speed: seconds of the bag per second"),
        loop=("1", "how many times to play the bag; 0: until Ctrl-C"),
        start=("0.0", "seconds to skip at the start of the bag"),
        duration=("0.0", "seconds to play; 0: to the end of the bag"),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=replay)])


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the player, which reads the bag; once it finds the camera, fuse_node starts."""
    given = common.value(context, "namespace")
    # This file may be included in a robot's namespace, which no longer applies when fuse_node
    # starts.
    around = "" if given.startswith("/") else context.launch_configurations.get(_PUSHED, "")
    namespace = "".join(f"/{part}" for part in f"{around}/{given}".split("/") if part)
    player = Node(
        package=common.PACKAGE,
        executable="replay_node",
        name="replay_node",
        namespace=namespace,
        parameters=[
            {
                "bag": common.text(str(Path(common.value(context, "bag")).expanduser().resolve())),
                "topic": common.text(common.value(context, "topic")),
                "loop": common.number(context, "loop", int),
                "wait_for": common.text(f"{namespace}/fuse_node"),
                **{name: common.number(context, name, float) for name in NUMBERS},
            }
        ],
        additional_env=common.environment(context),
        output="screen",
        on_exit=_end,
    )
    # Read them now: the arguments may be gone by the time the player has opened the bag.
    arguments = common.passed_on(context, **dict.fromkeys(FROM_THE_BAG, ""), namespace=namespace)
    printed = ""
    started = False

    def start_node(event: ProcessIO) -> LaunchDescriptionEntity | None:
        """Start fuse_node for the camera that the player found in the bag."""
        nonlocal printed, started
        printed += event.text.decode(errors="replace")
        *lines, printed = printed.split("\n")
        cameras = [json.loads(line) for line in lines if line.startswith('{"image":')]
        if started or not cameras:
            return None
        started = True
        return common.fuse({**arguments, **cameras[0], "use_sim_time": "true"})

    return [RegisterEventHandler(OnProcessIO(target_action=player, on_stdout=start_node)), player]


def _end(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    if event.returncode == 0:
        return Shutdown(reason="the bag has been played")
    if not context.is_shutdown:
        # Launch logs this, stops everything that runs, and exits with a non-zero code.
        raise RuntimeError(f"{event.process_name} failed with exit code {event.returncode}")
    return None
