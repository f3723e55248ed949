"""The ROS middleware in use."""

from rclpy.utilities import get_rmw_implementation_identifier


def rmw_name() -> str:
    """Return the name of the RMW implementation, such as rmw_fastrtps_cpp."""
    return str(get_rmw_implementation_identifier())
