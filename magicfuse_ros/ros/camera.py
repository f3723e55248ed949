"""The camera's topics: names and subscriptions of `fuse_node`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.parameters import FuseParameters
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.lost_messages import SUPPORTED, LostMessages
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
        """Subscribe.

        Raises:
            MagicFuseError: if a QoS override cannot be used; nothing is subscribed to then.
        """
        message_type = CompressedImage if values.image_transport == "compressed" else Image

        def note(camera_info: CameraInfo) -> None:
            worker.camera_info = camera_info

        lost = LostMessages()

        def take(message: Image | CompressedImage, info: Mapping[str, Any]) -> None:
            worker.statistics.lost(lost.before(info))
            worker.offer(message)

        self._node = node
        self._subscriptions: list[Subscription] = []
        try:
            offer = take if SUPPORTED else worker.offer
            self._subscribe(message_type, image_topic(node, values), offer)
            self._subscribe(CameraInfo, camera_info_topic(node), note)
        except MagicFuseError:
            self.destroy()
            raise

    def _subscribe(self, message_type: Any, topic: str, callback: Callable[..., None]) -> None:
        with qos.checked_overrides(topic):
            subscription = self._node.create_subscription(
                message_type, topic, callback, qos.camera(), qos_overriding_options=qos.OVERRIDABLE
            )
        self._subscriptions.append(subscription)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
