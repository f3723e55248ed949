# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Starts fuse_node, which configures and activates itself, and restarts it if it dies.

ros2 launch magicfuse_ros fuse.launch.py image:=/front/image_raw
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction
from launch.launch_description_sources.python_launch_file_utilities import (
    load_python_launch_file_as_module,
)

common = load_python_launch_file_as_module(str(Path(__file__).with_name("common.py")))


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments."""
    return LaunchDescription([*common.declare(), OpaqueFunction(function=fuse)])


def fuse(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node."""
    chosen = common.fuse_parameters(context)
    remappings = [("image", common.value(context, "image"))]
    return [common.managed_node(context, "fuse_node", "params_file", chosen, remappings)]
