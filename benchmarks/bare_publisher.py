# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The minimum cost of two image messages: a node that only publishes them, and times it.

overhead.py runs it. For every message on /bare/go it publishes an image, bgr8, and a mask, mono8,
and then the time that this took, in ms, and the CPU time of the process. A frame_id of "same" asks
for two messages that were made in advance, any other one for new ones from arrays whose pixels are
already in the right order: "new" fills messages, "serialised" makes the bytes that rclpy would.
"""

from __future__ import annotations

import sys
from time import perf_counter, process_time

import numpy as np
from bench_rig import camera_image
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, Header

from magicfuse_ros.ros import qos
from magicfuse_ros.ros.guard import Guard
from magicfuse_ros.ros.process import run, spin


class BarePublisher:
    """See above; the node's parameters are the size of the images."""

    def __init__(self, node: Node) -> None:
        height, width = (node.declare_parameter(name, 1).value for name in ("height", "width"))
        image = camera_image(height, width)
        mask = Image(encoding="mono8", height=height, width=width, step=width)
        mask.data.frombytes(image.data[: height * width])
        self._messages = (image, mask)
        self._pixels = [np.array(message.data, np.uint8) for message in self._messages]
        self._publishers = [
            node.create_publisher(Image, f"/bare/{name}", qos.images())
            for name in ("mag_image", "mask")
        ]
        self._cost_publisher = node.create_publisher(Float32, "/bare/cost_ms", 10)
        self._cpu_publisher = node.create_publisher(Float32, "/bare/cpu_ms", 10)
        node.create_subscription(Header, "/bare/go", self._publish, 10)

    def _publish(self, header: Header) -> None:
        began, cpu = perf_counter(), process_time()
        what = header.frame_id
        for message, pixels, publisher in zip(
            self._messages, self._pixels, self._publishers, strict=True
        ):
            if what == "same":
                message.header = header
                publisher.publish(message)
            elif what == "serialised":
                publisher.publish(serialised(message, pixels, header))
            else:
                publisher.publish(filled(message, pixels, header))
        cost, cpu = perf_counter() - began, process_time() - cpu
        self._cost_publisher.publish(Float32(data=1e3 * cost))
        self._cpu_publisher.publish(Float32(data=1e3 * cpu))


def filled(like: Image, pixels: np.ndarray, header: Header) -> Image:
    """Return a new message with these pixels."""
    message = Image(
        header=header, encoding=like.encoding, height=like.height, width=like.width, step=like.step
    )
    message.data.frombytes(pixels)  # the fastest way from an array into a message
    return message


def serialised(like: Image, pixels: np.ndarray, header: Header) -> bytes:
    """Return the bytes of a message with these pixels, which are its last field."""
    message = Image(
        header=header, encoding=like.encoding, height=like.height, width=like.width, step=like.step
    )
    length = np.uint32(pixels.size).tobytes()
    return b"".join((serialize_message(message)[:-4], length, pixels.tobytes()))


def make_node() -> Node:
    """Return the node; its subscription keeps the publisher alive."""
    node = Node("bare")
    node.guard = Guard(node.get_logger)  # `spin` checks it
    BarePublisher(node)
    return node


if __name__ == "__main__":
    sys.exit(run(make_node, spin))
