# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Starts fuse_node and ground_cloud_node for Nav2; both configure and activate themselves.

ros2 launch magicfuse_ros navigation.launch.py image:=/front/image_raw
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction
from launch.launch_description_sources.python_launch_file_utilities import (
    load_python_launch_file_as_module,
)

common = load_python_launch_file_as_module(str(Path(__file__).with_name("common.py")))

DEFAULTS = str(common.SHARE / "config" / "ground_cloud.yaml")
REMAPPINGS = [
    ("mask", "fuse_node/segmentation/mask"),
    ("label_info", "fuse_node/segmentation/label_info"),
    ("camera_info", "fuse_node/camera_info"),
]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments."""
    ground = (DEFAULTS, "file with the parameters of ground_cloud_node")
    arguments = common.declare(ground_params_file=ground)
    return LaunchDescription([*arguments, OpaqueFunction(function=navigation)])


def navigation(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return both nodes."""
    ground = common.managed_node(context, "ground_cloud_node", "ground_params_file", {}, REMAPPINGS)
    return [common.fuse(common.passed_on(context)), ground]
