"""Plays a bag's camera into fuse_node, with /clock, and ends with the bag.

ros2 launch magicfuse_ros replay.launch.py bag:=drive.mcap
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.bag_reader import COMPRESSED

PACKAGE = "magicfuse_ros"
FUSE = PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "fuse.launch.py"])
DEFAULTS = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "fuse.yaml"])
FORWARDED = ("bundle", "backend", "params_file", "namespace")


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; those of fuse.launch.py mean the same here."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2: folder, .mcap or .db3"),
            DeclareLaunchArgument("topic", default_value="", description="of several image topics"),
            DeclareLaunchArgument("rate", default_value="1.0", description="1 is real time"),
            DeclareLaunchArgument("loop", default_value="1", description="how often; 0: no end"),
            DeclareLaunchArgument("start", default_value="0.0", description="seconds left out"),
            DeclareLaunchArgument("duration", default_value="0.0", description="seconds; 0: all"),
            DeclareLaunchArgument("bundle", default_value="", description="folder of a bundle"),
            DeclareLaunchArgument("backend", default_value="", description="of fuse_node"),
            DeclareLaunchArgument(
                "params_file", default_value=DEFAULTS, description="parameters of fuse_node"
            ),
            DeclareLaunchArgument("namespace", default_value="", description="of fuse_node"),
            OpaqueFunction(function=replay),
        ]
    )


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node, which listens to the bag's image topic, and the player."""

    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    bag = str(Path(value("bag")).expanduser().resolve())
    source = BagSource(Path(bag), value("topic") or None)
    arguments = {name: value(name) for name in FORWARDED}
    arguments["image"] = source.base_topic
    arguments["image_transport"] = "compressed" if source.msgtype == COMPRESSED else "raw"
    arguments["use_sim_time"] = "true"
    played = {name: float(value(name)) for name in ("rate", "start", "duration")}
    node = "/".join(["", *filter(None, value("namespace").split("/")), "fuse_node"])
    player = Node(
        package=PACKAGE,
        executable="replay_node",
        name="replay_node",
        parameters=[
            {
                "bag": bag,
                "topic": source.topic,
                "loop": int(value("loop")),
                "wait_for": node,
                **played,
            }
        ],
        output="screen",
        on_exit=Shutdown(reason="the bag has been played"),
    )
    fuse = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(FUSE), launch_arguments=arguments.items()
    )
    return [fuse, player]
