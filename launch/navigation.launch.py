"""Starts fuse_node and ground_cloud_node for Nav2 and brings both to active.

ros2 launch magicfuse_ros navigation.launch.py image:=/front/image_raw
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.events import matches_action
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

SHARE = FindPackageShare("magicfuse_ros")
FUSE = PathJoinSubstitution([SHARE, "launch", "fuse.launch.py"])
DEFAULTS = PathJoinSubstitution([SHARE, "config", "ground_cloud.yaml"])


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments of the second node; those of fuse.launch.py are valid here, too."""
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    node = LifecycleNode(
        package="magicfuse_ros",
        executable="ground_cloud_node",
        name="ground_cloud_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("ground_params_file"), {"use_sim_time": use_sim_time}],
        remappings=[
            ("mask", "fuse_node/segmentation/mask"),
            ("label_info", "fuse_node/segmentation/label_info"),
            ("camera_info", "fuse_node/camera_info"),
        ],
        output="screen",
    )

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    # Only after configuring: a deactivation by the user, which also ends inactive, must last.
    activate_when_configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[change(Transition.TRANSITION_ACTIVATE)],
        )
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "ground_params_file",
                default_value=DEFAULTS,
                description="parameters of ground_cloud_node",
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource([FUSE])),
            activate_when_configured,
            node,
            change(Transition.TRANSITION_CONFIGURE),
        ]
    )
