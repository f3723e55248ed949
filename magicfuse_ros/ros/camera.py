"""The camera's topics: names and subscriptions of `fuse_node`."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from magicfuse_ros.parameters import FuseParameters
from magicfuse_ros.ros.worker import Worker


def image_topic(node: Node, values: FuseParameters) -> str:
    """Return the full name of the image topic."""
    name: str = node.resolve_topic_name("image")
    return f"{name}/compressed" if values.image_transport == "compressed" else name


def camera_info_topic(node: Node) -> str:
    """Return where it is remapped to, else the sibling of the image, as cameras publish it."""
    name: str = node.resolve_topic_name("camera_info")
    if name != node.resolve_topic_name("camera_info", only_expand=True):
        return name
    folder, _, _ = node.resolve_topic_name("image").rpartition("/")
    return f"{folder}/camera_info"


class Camera:
    """The subscriptions, from the making of it to `destroy`."""

    def __init__(self, node: Node, values: FuseParameters, worker: Worker) -> None:
        reliability = ReliabilityPolicy[values.image_reliability.upper()]
        newest = QoSProfile(depth=1, reliability=reliability)
        message_type = CompressedImage if values.image_transport == "compressed" else Image

        def note(camera_info: CameraInfo) -> None:
            worker.camera_info = camera_info

        self._node = node
        self._subscriptions = [
            node.create_subscription(message_type, image_topic(node, values), worker.offer, newest),
            node.create_subscription(CameraInfo, camera_info_topic(node), note, newest),
        ]

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
