# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Plays a bag's camera into ROS: the recorded messages, byte for byte, at their pace, with /clock.

ros2 run magicfuse_ros replay_node --ros-args -p bag:=drive.mcap

Publishes the image topic and the camera_info beside it under their names in the bag (a compressed
topic gets image_transport's name, and '_' replaces what ROS 2 forbids in names), and the recording
time as /clock, for nodes with use_sim_time.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from math import inf
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import Any, TextIO

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from magicfuse_ros.errors import FrameError, MagicFuseError, MediaError
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.bag_reader import COMPRESSED, RawMessage, header_stamp_ns
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.process import Stop, run
from magicfuse_ros.ros.subscriptions import node_name

_TICK_S = 0.01  # real time between two messages of /clock
_SETTLE_S = 0.5
_IMAGES_A_SECOND = 10.0  # rate of the rounds if a bag has a single image
_LAST_IMAGE = Duration(seconds=2)
_LONGEST_PAUSE_S, _PAUSE_S = 30.0, 1.0  # of a bag's time; a longer pause is cut to this one


class ReplayNode(Node):
    """Prints JSON: what a listener must know before the play, and what was sent after it."""

    def __init__(self) -> None:
        # It never spins while it plays: requests for parameters would get no answer.
        super().__init__("replay_node", start_parameter_services=False)
        start_values: dict[str, Any] = {
            "bag": "",  # folder, .mcap or .db3
            "topic": "",  # image topic of a bag that has several
            "start": 0.0,  # seconds of the bag to skip
            "duration": 0.0,  # seconds of the bag to play; 0: to its end
            "rate": 1.0,  # seconds of the bag per second
            "loop": 1,  # number of rounds; 0: endless
            "wait_for": "",  # full name of a node that must subscribe before the first image
            "wait_s": 600.0,  # longest wait for that node before the play is given up
            "published": "",  # file to write a line "stamp time", in ns, for each image
        }
        for name, value in start_values.items():
            self.declare_parameter(name, value)
        self._clock_publisher = self.create_publisher(Clock, "/clock", 1)
        self._sent = 0
        self._late_s = 0.0
        self._skipped_s = 0.0

    def play(self, stop: Stop) -> None:
        """Play the bag.

        Raises:
            MagicFuseError: if the bag cannot be read, `published` cannot be written, a parameter is
                out of range, or the node to wait for does not appear.
        """
        rate, loop = self._value("rate"), self._value("loop")
        if not 0 < rate < inf:
            raise MagicFuseError(f"rate is {rate}; expected more than 0")
        if loop < 0:
            raise MagicFuseError(f"loop is {loop}; expected 0 (without end) or more")
        if not self._value("bag"):
            raise MagicFuseError("bag is empty; expected -p bag:=FILE")
        source = BagSource(
            Path(os.path.expanduser(self._value("bag"))),
            self._value("topic") or None,
            start_s=self._value("start"),
            duration_s=self._value("duration") or None,
        )
        source.check_one_type()
        published = _opened(self._value("published"))
        publishers = self._make_publishers(source)
        transport = "compressed" if source.msgtype == COMPRESSED else "raw"
        # Arguments of fuse.launch.py, which replay.launch.py passes on.
        camera = {"image": source.played_topic, "image_transport": transport}
        print(json.dumps(camera), flush=True)
        self._wait(publishers[source.topic], stop)
        missing = 0
        damaged: dict[str, None] = {}  # each sentence once
        with published:
            for number in range(loop) if loop else itertools.count():
                if number:  # keep the usual interval between the last image and the next
                    self._rest(1 / (source.frame_rate or _IMAGES_A_SECOND) / rate, stop)
                for message in self._paced(source, rate, stop):
                    publishers[message.channel.topic].publish(message.cdr)
                    if message.channel.topic == source.topic:
                        self._sent += 1
                        published.write(f"{_stamp(message)} {time_ns()}\n")
                missing += source.missing
                reasons = [refusal.reason for refusal in source.refused]
                damaged |= dict.fromkeys([*reasons, *source.damage])
                if stop:
                    break
        publishers[source.topic].wait_for_all_acked(_LAST_IMAGE)
        report = {
            "sent": self._sent,
            "late_ms": round(1e3 * self._late_s, 1),
            "skipped_s": round(self._skipped_s, 1),
            "missing": missing,
            "damaged": list(damaged),
        }
        print(json.dumps(report), flush=True)

    def _rest(self, seconds: float, stop: Stop) -> None:
        end = monotonic() + seconds
        while not stop and (left := end - monotonic()) > 0:
            sleep(min(left, _TICK_S))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _make_publishers(self, source: BagSource) -> dict[str, Publisher]:
        camera = qos.images()
        compressed = source.msgtype == COMPRESSED
        base = source.played_topic
        name = f"{base}/compressed" if compressed else base
        kind = CompressedImage if compressed else Image
        info = f"{base.rpartition('/')[0]}/camera_info"
        return {
            source.topic: self.create_publisher(kind, name, camera),
            source.camera_info_topic: self.create_publisher(CameraInfo, info, camera),
        }

    def _wait(self, images: Publisher, stop: Stop) -> None:
        node, wait_s = self._value("wait_for"), self._value("wait_s")
        if not node:
            return
        topic = images.topic_name
        end = monotonic() + wait_s
        # Wait for the node itself: another subscriber, such as RViz, may be there first.
        while not stop and not (node in self._listeners(topic) and images.get_subscription_count()):
            if monotonic() > end:
                listeners = ", ".join(self._listeners(topic)) or "nobody"
                raise MagicFuseError(
                    f"{node} does not listen to {topic} after {wait_s:g} s; {listeners} does"
                )
            sleep(_TICK_S)
        sleep(_SETTLE_S)  # the node may not have discovered this one yet

    def _listeners(self, topic: str) -> list[str]:
        found = self.get_subscriptions_info_by_topic(topic)
        return sorted(set(map(node_name, found)))

    def _paced(self, source: BagSource, rate: float, stop: Stop) -> Any:
        """Yield each message at its time; late messages are not skipped, but long pauses are.

        A recorder without a battery for its clock begins in another year.
        """
        begin = 0.0
        start_ns = last_ns = None
        for message in source.raw_messages():
            if start_ns is None or last_ns is None:
                start_ns, begin = message.recorded_ns, monotonic()
            elif (pause := (message.recorded_ns - last_ns) / 1e9) > _LONGEST_PAUSE_S:
                begin -= (pause - _PAUSE_S) / rate
                self._skipped_s += pause - _PAUSE_S
                self.get_logger().warning(f"a pause of {pause:.0f} s in the bag is skipped")
            last_ns = message.recorded_ns
            due = begin + (message.recorded_ns - start_ns) / 1e9 / rate
            while not stop and (left := due - monotonic()) > 0:
                # Interpolate, so that a node's ages and timers do not stand still between images.
                self._publish_clock(message.recorded_ns - round(left * rate * 1e9))
                sleep(min(left, _TICK_S))
            if stop:
                return
            self._late_s = max(self._late_s, monotonic() - due)
            self._publish_clock(message.recorded_ns)
            yield message

    def _publish_clock(self, time_ns: int) -> None:
        self._clock_publisher.publish(Clock(clock=Time(nanoseconds=time_ns).to_msg()))


def _opened(path: str) -> TextIO:
    """Open a file and flush it after each line: even after a signal, it must hold what was sent."""
    path = os.path.expanduser(path or os.devnull)
    try:
        return open(path, "w", buffering=1)
    except OSError as error:
        raise MediaError(f"cannot write '{path}' (published): {error.strerror}") from error


def _stamp(message: RawMessage) -> int:
    try:
        return header_stamp_ns(message.cdr)
    except FrameError:  # publish it broken, as recorded: the node must cope with it
        return 0


def main() -> None:
    """Run the node; the entry point of the executable `replay_node`."""
    sys.exit(run(ReplayNode, ReplayNode.play))


if __name__ == "__main__":
    main()
