# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Records topics into a rosbag2 in MCAP, with the rosbags library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from time import time_ns
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from magicfuse_ros.media.bag_writer import BagWriter
from magicfuse_ros.ros.subscriptions import type_name

_RELIABLE = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(
    depth=30,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class TopicRecorder:
    """Writes messages in serialized form, with the time of their arrival.

    Attributes:
        counts: number of recorded messages by topic.
    """

    def __init__(
        self, node: Node, bag: Path, topics: Mapping[str, Any], latched: Collection[str] = ()
    ) -> None:
        """Subscribe.

        Args:
            node: receives the messages when it is spun.
            bag: the folder to make.
            topics: message classes by topic.
            latched: the topics that may be published before the recorder subscribes.

        Raises:
            MediaError: if the folder exists or cannot be made, or a message class is not from
                sensor_msgs, std_msgs, diagnostic_msgs or vision_msgs.
        """
        self.counts: Counter[str] = Counter()
        self._node = node
        self._writer = BagWriter(bag)
        self._subscriptions: dict[str, Subscription] = {}
        self._types = dict(topics)
        for topic, message_type in topics.items():
            self._writer.add_topic(topic, type_name(message_type), latched=topic in latched)
            self._subscribe(topic, _LATCHED if topic in latched else _RELIABLE)

    def _subscribe(self, topic: str, qos: QoSProfile) -> None:
        write = partial(self._write, topic)
        # raw gives the bytes as received; converting images to Python objects takes too long
        self._subscriptions[topic] = self._node.create_subscription(
            self._types[topic], topic, write, qos, raw=True
        )

    def match(self) -> None:
        """Resubscribe to best-effort topics, from which a reliable subscription gets nothing.

        A user's qos_overrides can make an already running node publish that way.
        """
        for topic, before in list(self._subscriptions.items()):
            if before.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT:
                continue
            offers = self._node.get_publishers_info_by_topic(topic)
            if any(o.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for o in offers):
                durability = before.qos_profile.durability
                best_effort = ReliabilityPolicy.BEST_EFFORT
                qos = QoSProfile(depth=30, reliability=best_effort, durability=durability)
                self._subscribe(topic, qos)
                self._node.destroy_subscription(before)

    def _write(self, topic: str, message: bytes) -> None:
        self._writer.write_cdr(topic, time_ns(), message)
        self.counts[topic] += 1

    def close(self) -> None:
        """Unsubscribe and finish the bag."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._writer.close()
