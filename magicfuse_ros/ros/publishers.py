"""The output topics of `fuse_node`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.deadline import FrameMode
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_ros.overlay import overlay, with_legend
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.images import Pixels, to_message
from magicfuse_ros.ros.labels import LABEL_TYPE, label_message


@dataclass(frozen=True)
class Topic:
    """One image topic: what of a fused frame it needs, and how it is made of that."""

    name: str
    needs: frozenset[Output]
    pixels: Callable[[FusedFrame], Pixels | None]


class Publishers:
    """Publishers of everything that comes out, lazy: `wanted` tells what has a subscriber."""

    def __init__(self, node: LifecycleNode, classes: list[SemanticClass]) -> None:
        """Advertise.

        Raises:
            MagicFuseError: if a QoS override cannot be used.
        """
        self._node = node
        self._classes = classes

        def blended(frame: FusedFrame) -> Pixels | None:
            if frame.mag_image is None or frame.mask is None:
                return None
            return with_legend(overlay(frame.mag_image, frame.mask, classes), classes)

        topics = (
            Topic("~/mag_image", frozenset({"mag_image"}), lambda frame: frame.mag_image),
            Topic("~/restored_image", frozenset({"restored"}), lambda frame: frame.restored),
            Topic(
                "~/thermal_estimate",
                frozenset({"thermal_estimate"}),
                lambda frame: frame.thermal_estimate,
            ),
            Topic("~/segmentation/mask", frozenset({"mask"}), lambda frame: frame.mask),
            Topic(
                "~/segmentation/confidence",
                frozenset({"confidence"}),
                lambda frame: frame.confidence,
            ),
            Topic("~/segmentation/overlay", frozenset({"mag_image", "mask"}), blended),
        )
        labels = "~/segmentation/label_info"
        self._labels = node.create_lifecycle_publisher(LABEL_TYPE, labels, qos.latched())
        self._made = [self._labels]
        try:
            self._images = {topic: self._create(Image, topic.name) for topic in topics}
            self._camera_info = self._create(CameraInfo, "~/camera_info")
        except MagicFuseError:
            self.destroy()
            raise

    def _create(self, message_type: Any, topic: str) -> Any:
        with qos.checked_overrides(topic):
            publisher = self._node.create_lifecycle_publisher(
                message_type, topic, qos.images(), qos_overriding_options=qos.OVERRIDABLE
            )
        self._made.append(publisher)
        return publisher

    def wanted(self, mode: FrameMode) -> list[Topic]:
        """Return the image topics that have a subscriber and that `mode` can serve."""
        return [
            topic
            for topic, publisher in self._images.items()
            if (mode == "fuse" or topic.needs == {"restored"})
            and publisher.get_subscription_count() > 0
        ]

    def publish(
        self,
        frame: FusedFrame,
        topics: Collection[Topic],
        header: Header,
        camera_info: CameraInfo | None,
    ) -> None:
        """Publish a frame on `topics`, all with the header of its camera image."""
        for topic in topics:
            pixels = topic.pixels(frame)
            if pixels is not None:
                self._images[topic].publish(to_message(pixels, header))
        if camera_info is not None:
            camera_info.header = header
            self._camera_info.publish(camera_info)

    def publish_labels(self) -> None:
        """Latch the names of the classes."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._labels.publish(label_message(self._classes, header))

    def destroy(self) -> None:
        """Take all topics back."""
        for publisher in self._made:
            self._node.destroy_lifecycle_publisher(publisher)
