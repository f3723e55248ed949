"""Starts fuse_node and brings it to active.

ros2 launch magicfuse_ros fuse.launch.py image:=/front/image_raw
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

PACKAGE = "magicfuse_ros"
DEFAULTS = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "fuse.yaml"])


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; an empty bundle or backend leaves the choice to params_file."""
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
                "params_file", default_value=DEFAULTS, description="parameters of fuse_node"
            ),
            DeclareLaunchArgument("namespace", default_value="", description="of the node"),
            DeclareLaunchArgument(
                "use_sim_time", default_value="false", description="take time from /clock"
            ),
            OpaqueFunction(function=fuse),
        ]
    )


def fuse(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node and the two transitions."""
    chosen = {
        name: ParameterValue(value, value_type=str)
        for name in ("bundle", "backend")
        if (value := LaunchConfiguration(name).perform(context))
    }
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    node = LifecycleNode(
        package=PACKAGE,
        executable="fuse_node",
        name="fuse_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {**chosen, "use_sim_time": use_sim_time},
        ],
        remappings=[("image", LaunchConfiguration("image"))],
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
    return [activate_when_configured, node, change(Transition.TRANSITION_CONFIGURE)]
