# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The output topics of `fuse_node`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.fuser import FusedFrame
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.images import ImageMessage
from magicfuse_ros.ros.labels import LABEL_TYPE, label_message
from magicfuse_ros.topics import CAMERA_INFO, LABELS, ImageTopic


class Publishers:
    """The publishers of all outputs; `wanted` returns those with a subscriber."""

    def __init__(
        self, node: LifecycleNode, topics: Collection[ImageTopic], classes: list[SemanticClass]
    ) -> None:
        """Advertise the image topics, the class names and the camera's calibration.

        Raises:
            MagicFuseError: if a QoS override cannot be used.
        """
        self._node = node
        self._classes = classes

        self._labels = node.create_lifecycle_publisher(
            LABEL_TYPE, f"~/{LABELS}", qos.latched(), event_callbacks=qos.no_events()
        )
        self._images = {topic: self._create(Image, topic.name) for topic in topics}
        self._messages = {topic: ImageMessage() for topic in topics}
        self._camera_info = self._create(CameraInfo, CAMERA_INFO)

    def _create(self, message_type: Any, name: str) -> Any:
        topic = f"~/{name}"
        with qos.checked_overrides(topic):
            return self._node.create_lifecycle_publisher(
                message_type,
                topic,
                qos.images(),
                event_callbacks=qos.no_events(),
                qos_overriding_options=qos.OVERRIDABLE,
            )

    def wanted(self) -> list[ImageTopic]:
        """Return the image topics with a subscriber."""
        images = self._images.items()
        return [topic for topic, publisher in images if publisher.get_subscription_count() > 0]

    def camera_info_wanted(self) -> bool:
        """Return whether the camera's calibration has a subscriber."""
        return bool(self._camera_info.get_subscription_count() > 0)

    def publish(
        self,
        frame: FusedFrame,
        topics: Collection[ImageTopic],
        header: Header,
        camera_info: CameraInfo | None,
    ) -> None:
        """Publish a frame on `topics`, with its camera image's header, and its camera_info."""
        if camera_info is not None:  # first, so that whoever gets an image has its calibration
            self._camera_info.publish(camera_info)
        for topic in topics:
            pixels = topic.pixels(frame, self._classes)
            if pixels is not None:
                self._images[topic].publish(self._messages[topic].fill(pixels, header))

    def publish_labels(self) -> None:
        """Publish the class names on their latched topic."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._labels.publish(label_message(self._classes, header))

    def destroy(self) -> None:
        """Remove all topics."""
        for publisher in (self._labels, *self._images.values(), self._camera_info):
            self._node.destroy_lifecycle_publisher(publisher)
