"""Records topics into a rosbag2 in MCAP, with the rosbags library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import time_ns
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

_RELIABLE = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)


class Recorder:
    """Writes messages as they come off the wire, with the time of their arrival.

    Attributes:
        counts: recorded messages by topic.
    """

    def __init__(self, node: Node, bag: Path, topics: Mapping[str, Any]) -> None:
        """Subscribe.

        Args:
            node: receives the messages when it is spun.
            bag: the folder to make.
            topics: message classes of sensor_msgs, std_msgs or diagnostic_msgs by topic.

        Raises:
            rosbags.rosbag2.WriterError: if the folder exists.
        """
        self.counts: Counter[str] = Counter()
        self._node = node
        self._writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        store = get_typestore(Stores.ROS2_JAZZY)
        self._subscriptions = []
        for topic, message_type in topics.items():
            package = message_type.__module__.partition(".")[0]
            name = f"{package}/msg/{message_type.__name__}"
            connection = self._writer.add_connection(topic, name, typestore=store)
            write = partial(self._write, connection)
            # raw: the bytes as they came; to make Python objects of images takes too long here
            self._subscriptions.append(
                node.create_subscription(message_type, topic, write, _RELIABLE, raw=True)
            )

    def _write(self, connection: Connection, message: bytes) -> None:
        self._writer.write(connection, time_ns(), message)
        self.counts[connection.topic] += 1

    def close(self) -> None:
        """Unsubscribe and finish the bag."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._writer.close()
