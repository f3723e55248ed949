"""Starts one fuse_node a camera, each in its camera's namespace, with the cores shared out.

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
        image=("image_raw", "camera topic in each namespace"),
        threads=("", "CPU threads of a network; 0: all cores; empty: a node's share of the cores"),
        namespace=("", "namespace in front of the cameras'"),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=cameras)])


def cameras(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return a fuse.launch.py for every camera."""
    given = common.value(context, "cameras")
    names = [name.strip() for name in given.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise RuntimeError(f"cameras is '{given}'; expected different names, such as front,rear")
    share = max(1, len(os.sched_getaffinity(0)) // len(names))
    threads = common.value(context, "threads") or str(share)
    before = common.value(context, "namespace")
    return [
        common.fuse(
            common.passed_on(
                context, namespace=f"{before}/{name}" if before else name, threads=threads
            )
        )
        for name in names
    ]
