"""Starts fuse_node, which configures and activates itself, and starts it again if it dies.

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
