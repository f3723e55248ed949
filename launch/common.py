# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What the launch files share: their arguments, and how a node is started.

Every launch file takes these arguments, lists them, and passes them on to everything it starts.
Launch files run in the Python of `ros2`, so they import only ROS and the standard library.
"""

import itertools
import os
import shutil
from pathlib import Path
from typing import Any, Callable, List  # noqa: UP035 (launch only knows typing's types)

from launch import LaunchContext, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "magicfuse_ros"
SHARE = Path(__file__).parents[1]
PROFILE = SHARE / "config" / "fastdds.xml"
PROFILE_VARIABLE = (
    "FASTRTPS_DEFAULT_PROFILES_FILE"
    if os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
    else "FASTDDS_DEFAULT_PROFILES_FILE"
)
SHARED_MEMORY = Path("/dev/shm")
SEGMENTS = 3 * 64 * 2**20  # bytes: the profile takes 64 MB each for camera, node and viewer
RESPAWN_DELAY_S = 2.0
REFUSED = 1  # exit code of a node that cannot start, for a reason that only the user can change

# Default and description of each argument. An empty argument leaves the value to params_file.
ARGUMENTS = {
    "image": ("image", "camera topic"),
    "image_transport": ("", "raw or compressed"),
    "bundle": ("", "folder of a bundle"),
    "backend": ("", "auto, tensorrt_rtx, tensorrt, openvino or onnxruntime"),
    "precision": ("", "auto, fp32, fp16 or int8"),
    "threads": ("", "CPU threads for each frame; 0: all cores"),
    "params_file": (str(SHARE / "config" / "fuse.yaml"), "file with the parameters of fuse_node"),
    "namespace": ("", "namespace of the nodes"),
    "use_sim_time": ("", "true: the nodes take the time from /clock"),
    "autostart": (
        "true",
        "true: the nodes configure and activate themselves; false: a lifecycle manager does",
    ),
    "respawn": ("true", "true: restart a node that dies"),
    "fastdds_profile": (
        "false",
        "true: use the package's Fast DDS profile, made for images and clouds; or a profile's path",
    ),
}


def declare(
    omit: tuple[str, ...] = (), **changes: tuple[str | None, str]
) -> list[DeclareLaunchArgument]:
    """Declare the arguments, some of them left out, changed or added.

    Args:
        omit: names of `ARGUMENTS` that the launch file sets itself.
        changes: default and description by name; None as the default: the argument is required.
    """
    return [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in {**changes, **ARGUMENTS, **changes}.items()
        if name not in omit
    ]


def value(context: LaunchContext, name: str) -> str:
    """Return the value of an argument."""
    return str(LaunchConfiguration(name).perform(context)).strip()


def flag(context: LaunchContext, name: str) -> bool:
    """Return whether an argument is true."""
    given = value(context, name)
    if given.lower() not in ("true", "false"):
        raise RuntimeError(f"{name} is '{given}'; expected true or false")
    return given.lower() == "true"


def number(context: LaunchContext, name: str, kind: type[int] | type[float]) -> int | float:
    """Return the value of an argument as a number."""
    given = value(context, name)
    try:
        return kind(given)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise RuntimeError(f"{name} is '{given}'; expected {expected}") from None


def text(given: str) -> ParameterValue:
    """Return a string as a parameter's value; launch would turn '7' into a number."""
    return ParameterValue(given, value_type=str)


def texts(given: list[str]) -> ParameterValue:
    """Return strings as a parameter's value."""
    return ParameterValue(given, value_type=List[str])  # noqa: UP006


def fuse_parameters(context: LaunchContext) -> dict[str, Any]:
    """Return the parameters of fuse_node that have their own argument and were given."""
    chosen: dict[str, Any] = {
        name: text(given)
        for name in ("bundle", "backend", "precision", "image_transport")
        if (given := value(context, name))
    }
    if value(context, "threads"):
        chosen["threads"] = number(context, "threads", int)
    return chosen


def managed_node(
    context: LaunchContext,
    executable: str,
    params_file: str,
    parameters: dict[str, Any],
    remappings: list[tuple[str, str]],
    several: bool = False,
) -> Node:
    """Return a lifecycle node, or an executable of several.

    A node that dies is restarted (respawn). A node that refuses its configuration ends the launch,
    because it would refuse it every time.

    Args:
        context: holds the arguments.
        executable: of the package; also the node's name, unless it makes several nodes.
        params_file: name of the argument with its parameter file.
        parameters: further parameters, which override the file's.
        remappings: topic remappings of the node.
        several: whether the executable makes several nodes, which have names of their own.
    """
    file = Path(value(context, params_file)).expanduser()
    if not file.is_file():
        raise RuntimeError(f"{params_file} is '{file}', which is not a file")
    # The node starts itself: after a crash, a request from here may get lost, because DDS still
    # believes that the dead node's service is alive.
    given = [name for name in ("use_sim_time", "autostart") if value(context, name)]
    switches = {name: flag(context, name) for name in given}
    return Node(
        package=PACKAGE,
        executable=executable,
        name=None if several else executable,
        namespace=value(context, "namespace"),
        parameters=[str(file), {**parameters, **switches}],
        remappings=remappings,
        additional_env=environment(context),
        respawn=flag(context, "respawn"),
        respawn_delay=RESPAWN_DELAY_S,
        on_exit=_end_if_refused(),
        output="screen",
    )


def _end_if_refused() -> Callable[[ProcessExited, LaunchContext], None]:
    """Return a handler that ends the launch if a node is refused at its first start.

    A node that has run is started again whatever its exit code is: Python uses that of a refusal,
    too, for example if memory is too short to import a module.
    """
    exits = itertools.count()

    def end(event: ProcessExited, context: LaunchContext) -> None:
        first = next(exits) == 0
        if first and event.returncode == REFUSED and not context.is_shutdown:
            # Launch logs this, stops everything that runs, and exits with a non-zero code.
            raise RuntimeError(f"{event.process_name} cannot start; its message above says why")

    return end


def environment(context: LaunchContext) -> dict[str, str]:
    """Return the environment variables that make a process use the Fast DDS profile."""
    given = value(context, "fastdds_profile")
    if given.lower() in ("", "false"):
        return {}
    if given.lower() == "true":
        _check_shared_memory()
    path = PROFILE if given.lower() == "true" else Path(given).expanduser()
    if not path.is_file():
        raise RuntimeError(f"fastdds_profile is '{given}'; expected true, false or a file's path")
    return {PROFILE_VARIABLE: str(path)}


def _check_shared_memory() -> None:
    """Refuse a profile whose segments do not fit: Fast DDS would skip them and lose images."""
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    if free < SEGMENTS:
        raise RuntimeError(
            f"fastdds_profile is 'true', and {SHARED_MEMORY} has {free >> 20} MB free; expected "
            f"{SEGMENTS >> 20} MB or more: start a container with --shm-size=1g or --ipc=host"
        )


def fuse(arguments: dict[str, str]) -> LaunchDescriptionEntity:
    """Return fuse.launch.py with these arguments, which apply to nothing else."""
    source = PythonLaunchDescriptionSource(str(SHARE / "launch" / "fuse.launch.py"))
    include = IncludeLaunchDescription(source, launch_arguments=arguments.items())
    return GroupAction([include], scoped=True)


def passed_on(context: LaunchContext, **changes: str) -> dict[str, str]:
    """Return the arguments for `fuse`: those of this launch file, with some changed."""
    names = [name for name in ARGUMENTS if name not in changes]
    return {**{name: value(context, name) for name in names}, **changes}
