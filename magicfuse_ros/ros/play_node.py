# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A camera for demos and tests: plays a video, pictures or a bag at their own frame rate.

ros2 run magicfuse_ros play_node --ros-args -p input:=drive.mp4 -r image:=/front/image_raw
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from time import monotonic, sleep
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media import open_source
from magicfuse_ros.media.night import by_night
from magicfuse_ros.printable import printable
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.images import to_message
from magicfuse_ros.ros.process import Stop, run

PICTURES_A_SECOND = 10.0  # for pictures, which have no clock
_AHEAD_BYTES = 1 << 30
_WAKE_S = 0.05
_SETTLE_S = 0.5
_LAST_IMAGE = Duration(seconds=2)


class PlayNode(Node):
    """Publishes all frames, prints `{"sent": <frames>}` and ends."""

    def __init__(self) -> None:
        # It never spins while it plays: requests for parameters would get no answer.
        super().__init__("play_node", start_parameter_services=False)
        start_values: dict[str, Any] = {
            "input": "",  # picture, folder of pictures, video or rosbag2
            "topic": "",  # image topic of a bag that has several
            "seconds": 0.0,  # to play; 0: all
            "frame_id": "camera",
            "night": False,  # play the frames as if at night
            "wait_for": 0,  # number of subscribers to wait for before the first frame
        }
        for name, value in start_values.items():
            self.declare_parameter(name, value)
        self._image_publisher = self.create_publisher(Image, "image", qos.images())

    def play(self, stop: Stop) -> None:
        """Publish all frames; the stamp of each is the time of its publication.

        Raises:
            MediaError: if the input is empty or cannot be opened.
        """
        if not self._value("input"):
            raise MediaError("input is empty; expected -p input:=FILE")
        source = open_source(self._value("input"), self._value("topic") or None)
        rate = source.frame_rate or PICTURES_A_SECOND
        seconds = self._value("seconds")
        frames = itertools.islice(source, max(1, round(seconds * rate)) if seconds else None)
        images: Iterable[Pixels] = (frame.image for frame in frames)
        if self._value("night"):
            # In advance: during the play this would take CPU time from the fuser.
            images = ahead(by_night(images), stop)
        if self._value("wait_for"):
            self._wait(self._value("wait_for"), stop)
        sent = 0
        for image in paced(images, 1 / rate, stop):
            if self._value("use_sim_time"):
                rclpy.spin_once(self, timeout_sec=0.0)  # takes /clock
            stamp = self.get_clock().now().to_msg()
            header = Header(stamp=stamp, frame_id=self._value("frame_id"))
            self._image_publisher.publish(to_message(image, header))
            sent += 1
        self._image_publisher.wait_for_all_acked(_LAST_IMAGE)
        lines = list(source.damage)
        if source.refused:
            lost, last = len(source.refused) + source.missing, source.refused[-1]
            line = f"{lost} frames of '{source.name}' were not played; {last.name}: {last.reason}"
            lines.append(line)
        for line in lines:
            self.get_logger().warning(printable(line))
        print(json.dumps({"sent": sent}), flush=True)

    def _wait(self, subscribers: int, stop: Stop) -> None:
        while not stop and self._image_publisher.get_subscription_count() < subscribers:
            sleep(_WAKE_S)
        sleep(_SETTLE_S)  # a discovered subscriber may not have discovered this node yet

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def ahead(images: Iterator[Pixels], stop: Stop) -> Iterator[Pixels]:
    """Make as many images now as fit into `_AHEAD_BYTES`, unless `stop` comes, and yield all."""
    made: list[Pixels] = []
    left = _AHEAD_BYTES
    while left > 0 and not stop and (image := next(images, None)) is not None:
        made.append(image)
        left -= image.nbytes
    return itertools.chain(made, images)


def paced(images: Iterable[Pixels], period_s: float, stop: Stop) -> Iterator[Pixels]:
    """Yield an image every `period_s`; a late image delays the next ones, none is skipped."""
    due = 0.0
    for image in images:
        due = max(due + period_s, monotonic())
        while not stop and (left := due - monotonic()) > 0:
            sleep(min(left, _WAKE_S))
        if stop:
            return
        yield image


def main() -> None:
    """Run the node; the entry point of the executable `play_node`."""
    sys.exit(run(PlayNode, PlayNode.play))


if __name__ == "__main__":
    main()
