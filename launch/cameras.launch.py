"""Starts one fuse_node a camera, each in its camera's namespace, with the cores shared out.

ros2 launch magicfuse_ros cameras.launch.py cameras:=front,rear

subscribes to /front/image_raw and /rear/image_raw. All arguments of fuse.launch.py are taken, too,
and hold for every node.
"""

import os

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

FUSE = PathJoinSubstitution([FindPackageShare("magicfuse_ros"), "launch", "fuse.launch.py"])


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("cameras", description="namespaces, such as front,rear"),
            DeclareLaunchArgument(
                "image", default_value="image_raw", description="camera topic in each namespace"
            ),
            DeclareLaunchArgument(
                "threads", default_value="", description="CPU threads of a node; empty: its share"
            ),
            OpaqueFunction(function=cameras),
        ]
    )


def cameras(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return a fuse.launch.py for every camera."""
    given: str = LaunchConfiguration("cameras").perform(context)
    names = [name.strip() for name in given.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise RuntimeError(f"cameras is '{given}'; expected different names, such as front,rear")
    share = max(1, len(os.sched_getaffinity(0)) // len(names))
    threads = LaunchConfiguration("threads").perform(context) or str(share)
    return [
        # Scoped: one camera's arguments must not be the next one's.
        GroupAction(
            [
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(FUSE),
                    launch_arguments={"namespace": name, "threads": threads}.items(),
                )
            ],
            scoped=True,
        )
        for name in names
    ]
