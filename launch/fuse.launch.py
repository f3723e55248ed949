"""Starts fuse_node, which configures and activates itself, and starts it again where it dies.

ros2 launch magicfuse_ros fuse.launch.py image:=/front/image_raw
"""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE = "magicfuse_ros"
DEFAULTS = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "fuse.yaml"])
PROFILE = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "fastdds.xml"])
PROFILE_VARIABLE = (
    "FASTRTPS_DEFAULT_PROFILES_FILE"
    if os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
    else "FASTDDS_DEFAULT_PROFILES_FILE"
)
RESPAWN_DELAY_S = 2.0


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; what is empty is left to params_file."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="image", description="camera topic"),
            DeclareLaunchArgument("bundle", default_value="", description="folder of a bundle"),
            DeclareLaunchArgument(
                "backend",
                default_value="",
                description="auto, tensorrt_rtx, tensorrt, openvino or onnxruntime",
            ),
            DeclareLaunchArgument(
                "threads", default_value="", description="CPU threads of a network; 0: all cores"
            ),
            DeclareLaunchArgument(
                "image_transport", default_value="", description="raw or compressed"
            ),
            DeclareLaunchArgument(
                "params_file", default_value=DEFAULTS, description="parameters of fuse_node"
            ),
            DeclareLaunchArgument("namespace", default_value="", description="of the node"),
            DeclareLaunchArgument(
                "use_sim_time", default_value="false", description="take time from /clock"
            ),
            DeclareLaunchArgument(
                "fastdds_profile",
                default_value="false",
                description="true: the package's Fast DDS profile for images; or a profile's path",
            ),
            DeclareLaunchArgument(
                "respawn", default_value="true", description="start the node again where it dies"
            ),
            OpaqueFunction(function=fuse),
        ]
    )


def fuse(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node."""
    chosen = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in (
            ("bundle", str),
            ("backend", str),
            ("threads", int),
            ("image_transport", str),
        )
        if LaunchConfiguration(name).perform(context)
    }
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    node = LifecycleNode(
        package=PACKAGE,
        executable="fuse_node",
        name="fuse_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            # By itself: a request from here may get lost after a crash, while DDS still takes the
            # dead node's service for alive.
            {**chosen, "use_sim_time": use_sim_time, "autostart": True},
        ],
        remappings=[("image", LaunchConfiguration("image"))],
        additional_env={PROFILE_VARIABLE: path} if (path := profile(context)) else {},
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=RESPAWN_DELAY_S,
        output="screen",
    )
    return [node]


def profile(context: LaunchContext) -> str:
    """Return the path of the Fast DDS profile; empty for none."""
    value: str = LaunchConfiguration("fastdds_profile").perform(context)
    if value.lower() in ("", "false"):
        return ""
    path: str = PROFILE.perform(context) if value.lower() == "true" else value
    if not Path(path).is_file():
        raise RuntimeError(f"fastdds_profile is '{value}'; expected true, false or a file's path")
    return path
