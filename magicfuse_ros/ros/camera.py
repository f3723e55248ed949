# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The camera topics of `fuse_node`: names, subscriptions, and what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from magicfuse_ros.parameters import FuseParameters
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.lost_messages import SUPPORTED, LostMessages
from magicfuse_ros.ros.managed_node import ManagedNode
from magicfuse_ros.ros.subscriptions import published_types, type_name
from magicfuse_ros.ros.worker import Worker

_COMPRESSED = "/compressed"


def image_topic(node: Node, values: FuseParameters) -> str:
    """Return the full name of the image topic, after all remapping."""
    name: str = node.resolve_topic_name("image")
    if values.image_transport == "compressed":
        name = node.resolve_topic_name(f"{name}{_COMPRESSED}")
    return name


def camera_info_topic(node: Node, values: FuseParameters) -> str:
    """Return the remapped name, or else the topic beside the image, where cameras publish it."""
    name: str = node.resolve_topic_name("camera_info")
    if _is_remapped(node, "camera_info"):
        return name
    folder, _, _ = image_topic(node, values).removesuffix(_COMPRESSED).rpartition("/")
    return f"{folder}/camera_info"


def _is_remapped(node: Node, topic: str) -> bool:
    """Return whether a remapping names a relative topic of a node, even if to the name it has."""
    plain = node.resolve_topic_name(topic, only_expand=True)
    if node.resolve_topic_name(topic) != plain:
        return True
    rules = (argument.partition(":=")[0] for argument in sys.argv if ":=" in argument)
    owners = ("", f"{node.get_name()}:")
    return any(rule in {f"{o}{t}" for o in owners for t in (topic, plain)} for rule in rules)


class Camera:
    """The camera's subscriptions, until the node unsubscribes."""

    def __init__(
        self, node: ManagedNode[FuseParameters], values: FuseParameters, worker: Worker
    ) -> None:
        """Subscribe.

        Raises:
            MagicFuseError: if a QoS override cannot be used.
        """
        self._node = node
        self._compressed = values.image_transport == "compressed"
        lost = LostMessages()

        def take(message: Image | CompressedImage, info: Mapping[str, Any]) -> None:
            worker.statistics.lost(lost.before(info))
            worker.offer(message)

        message_type = CompressedImage if self._compressed else Image
        offer = take if SUPPORTED else worker.offer
        self._images = node.subscribe(message_type, image_topic(node, values), offer, qos.camera)
        info_topic = camera_info_topic(node, values)
        self._infos = node.subscribe(CameraInfo, info_topic, worker.infos.add, qos.camera)

    def image_complaint(self, silent: bool) -> str:
        """Return why no images arrive and what to do about it; empty if nothing is wrong.

        `silent`: no image has arrived so far. Some drivers advertise what they never publish.
        """
        if complaint := self._images.complaint():
            return f"{complaint}{self._advice()}"
        if several := self._images.several():
            return several
        if silent and self._images.settled() and (advice := self._advice()):
            return f"nothing arrives on {self._images.topic}{advice}"
        return ""

    def info_complaint(self, wanted: bool, silent: bool) -> str:
        """Return why no camera_info arrives; empty if nothing is wrong.

        Not every camera has one: a missing publisher, or one that has been `silent` so far, is a
        fault only if camera_info is `wanted`.
        """
        if (wanted or self._infos.published()) and (complaint := self._infos.complaint()):
            return complaint
        if wanted and silent and self._infos.settled():
            return f"nothing arrives on {self._infos.topic}"
        return ""

    def _advice(self) -> str:
        """Return advice on the usual mistake: one image_transport topic instead of the other."""
        topic = self._images.topic
        base = topic.removesuffix(_COMPRESSED)
        raw, jpeg = type_name(Image), type_name(CompressedImage)
        if not self._compressed:
            if jpeg in published_types(self._node, topic):
                advice = f"image to {base}" if base != topic else f"image/compressed to {topic}"
                return f"; set image_transport: compressed and remap {advice}"
            if jpeg in published_types(self._node, f"{topic}{_COMPRESSED}"):
                return f"; {topic}{_COMPRESSED} is there: set image_transport: compressed"
        elif jpeg in published_types(self._node, base):
            plain = base.removesuffix(_COMPRESSED)
            if plain == base:
                return f"; {base} is there: remap image/compressed to it, and not image"
            return f"; {base} is there: remap image to {plain}, as {_COMPRESSED} is added to it"
        elif raw in published_types(self._node, base):
            return f"; {base} is there: set image_transport: raw"
        return ""
