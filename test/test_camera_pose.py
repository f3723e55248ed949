# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`TfPose` with a stand-in for tf2_ros: transforms when time jumps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from builtin_interfaces.msg import Time as Stamp
from rclpy.context import Context
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from magicfuse_ros.errors import CalibrationError
from magicfuse_ros.ros.camera_pose import TfPose, TransformMissingError


class MissingError(Exception):
    """Stand-in for tf2_ros.TransformException."""


class Buffer:
    """Knows one pose until it is cleared."""

    cleared = 0

    def clear(self) -> None:
        self.cleared += 1

    def lookup_transform(self, target: str, source: str, time: Time) -> Any:
        if self.cleared:
            raise MissingError(f"{source} does not exist")
        place = SimpleNamespace(x=0.0, y=0.0, z=1.5)
        turn = SimpleNamespace(x=-0.5, y=0.5, z=-0.5, w=0.5)
        return SimpleNamespace(transform=SimpleNamespace(translation=place, rotation=turn))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    stand_in = SimpleNamespace(
        Buffer=Buffer,
        TransformException=MissingError,
        TransformListener=lambda buffer, node: SimpleNamespace(unregister=lambda: None),
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context)
    made = rclpy.create_node("pose_test", context=context)
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


def header(seconds: int) -> Header:
    return Header(stamp=Stamp(sec=seconds), frame_id="cam")


def set_clock(node: Node, seconds: float) -> None:
    node.get_clock().set_ros_time_override(Time(nanoseconds=int(seconds * 1e9)))


def test_transforms_of_a_bags_last_round_are_forgotten(node: Node) -> None:
    node.get_clock()._set_ros_time_is_active(True)
    set_clock(node, 100.0)
    pose = TfPose(node, "base")
    for seconds in (100.1, 160.0, 159.9):  # forward, then back within the tolerance of disorder
        set_clock(node, seconds)
    assert pose.pose(header(159)).position == (0.0, 0.0, 1.5)
    set_clock(node, 100.0)
    with pytest.raises(TransformMissingError, match="'cam' to 'base'"):
        pose.pose(header(100))
    set_clock(node, 20.0)
    assert pose._buffer.cleared == 2
    buffer = ref(pose._buffer)
    pose.close()
    set_clock(node, 1.0)
    assert buffer() is None, "the transforms went at once"


def test_without_clock_the_images_tell(node: Node) -> None:
    pose = TfPose(node, "base")
    for seconds in (100, 160, 0):  # 0: no stamp
        pose.pose(header(seconds))
    with pytest.raises(TransformMissingError):
        pose.pose(header(100))
    with pytest.raises(TransformMissingError):
        pose.pose(header(101))
    assert pose._buffer.cleared == 1
    pose.close()


def test_a_stamp_before_1970_is_refused(node: Node) -> None:
    pose = TfPose(node, "base")
    with pytest.raises(CalibrationError, match="stamp -1 s"):
        pose.pose(header(-1))
    pose.close()


@pytest.mark.parametrize("frame", ["", "/cam"])
def test_a_frame_that_tf_cannot_take_is_refused_at_once(node: Node, frame: str) -> None:
    pose = TfPose(node, "base")
    with pytest.raises(CalibrationError, match=f"frame_id '{frame}'") as refusal:
        pose.pose(Header(stamp=Stamp(sec=1), frame_id=frame))
    assert not isinstance(refusal.value, TransformMissingError)
    pose.close()
