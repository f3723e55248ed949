# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Subscriptions that follow their publishers, within one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Int32, String

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.ros import qos, subscriptions
from magicfuse_ros.ros.subscriptions import MatchedSubscription
from ros_rig import LATCHED, RELIABLE, Domain

BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABILITY = "qos_overrides./cam.subscription.reliability"


class Pair:
    """A node that subscribes to /cam, and one that publishes there, each with its own context.

    Fast DDS allows one type per topic and context.
    """

    def __init__(self, contexts: tuple[Context, Context], overrides: list[Parameter]) -> None:
        mine, other = contexts
        self.node = Node("listener", context=mine, parameter_overrides=overrides)
        self.camera = Node("camera", context=other)
        self._executor = SingleThreadedExecutor(context=mine)
        self._executor.add_node(self.node)
        self.got: list[int] = []

    def subscribe(self) -> MatchedSubscription:
        return MatchedSubscription(
            self.node, Int32, "/cam", lambda m: self.got.append(m.data), qos.newest
        )

    def publisher(self, profile: QoSProfile, message_type: Any = Int32) -> Any:
        before = self.node.count_publishers("/cam")
        made = self.camera.create_publisher(message_type, "/cam", profile)
        assert self.spin(lambda: self.node.count_publishers("/cam") > before)
        return made

    def reliability(self, wanted: ReliabilityPolicy) -> bool:
        """Wait until the camera sees one subscription with this reliability."""

        def seen() -> bool:
            found = self.camera.get_subscriptions_info_by_topic("/cam")
            return [info.qos_profile.reliability for info in found] == [wanted]

        return self.spin(seen)

    def remove(self, publisher: Any) -> None:
        before = self.node.count_publishers("/cam")
        self.camera.destroy_publisher(publisher)
        assert self.spin(lambda: self.node.count_publishers("/cam") < before)

    def arrives(self, publisher: Any, number: int) -> bool:
        def sent() -> bool:
            publisher.publish(Int32(data=number))
            return number in self.got

        return self.spin(sent)

    def spin(self, done: Callable[[], bool]) -> bool:
        for _ in range(500):
            if done():
                return True
            self._executor.spin_once(timeout_sec=0.02)
        return False

    def close(self) -> None:
        self._executor.shutdown()
        for node in (self.node, self.camera):
            node.destroy_node()


@pytest.fixture(scope="module")
def contexts() -> Iterator[tuple[Context, Context]]:
    domain, made = Domain(), (Context(), Context())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        for context in made:
            rclpy.init(context=context, domain_id=domain.number)
        yield made
        for context in made:
            rclpy.shutdown(context=context)
    domain.free()


@pytest.fixture
def pair(contexts: tuple[Context, Context], request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(contexts, getattr(request, "param", []))
    yield made
    made.close()


def test_reliability_follows_the_publishers(pair: Pair) -> None:
    subscription = pair.subscribe()
    reliable = pair.publisher(RELIABLE)
    subscription.match()
    assert pair.arrives(reliable, 1)
    best_effort = pair.publisher(BEST_EFFORT)  # the subscription follows at once, without `match`
    assert pair.arrives(best_effort, 2) and pair.arrives(reliable, 3)
    assert subscription.complaint() == ""
    assert pair.reliability(ReliabilityPolicy.BEST_EFFORT)
    pair.remove(best_effort)
    subscription.match()
    assert pair.reliability(ReliabilityPolicy.RELIABLE)


def test_what_was_latched_before_is_received(pair: Pair) -> None:
    subscription = pair.subscribe()
    latched = pair.publisher(LATCHED)
    latched.publish(Int32(data=7))
    subscription.match()
    assert pair.spin(lambda: pair.got == [7])
    subscription.destroy()
    pair.got.clear()
    pair.subscribe()  # the publisher is known from the start
    assert pair.spin(lambda: pair.got == [7])


def test_it_stays_as_it_is_while_the_camera_is_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = pair.publisher(BEST_EFFORT)
    subscription = pair.subscribe()
    pair.remove(camera)
    subscription.match()
    assert pair.reliability(ReliabilityPolicy.BEST_EFFORT)
    assert subscription.complaint() == "", "one that is there may not be discovered yet"
    monkeypatch.setattr(subscriptions, "_DISCOVERY_S", 0.0)
    assert subscription.complaint() == "nobody publishes /cam"


def test_another_type_is_named(pair: Pair) -> None:
    subscription = pair.subscribe()
    pair.publisher(RELIABLE, String)
    expected = "/camera publishes /cam as std_msgs/msg/String, not std_msgs/msg/Int32"
    assert pair.spin(lambda: subscription.complaint() == expected)


@pytest.mark.parametrize("pair", [[Parameter(RELIABILITY, value="reliable")]], indirect=True)
def test_an_override_rules(pair: Pair) -> None:
    subscription = pair.subscribe()
    pair.publisher(BEST_EFFORT)
    subscription.match()
    assert pair.reliability(ReliabilityPolicy.RELIABLE)
    assert "best effort publisher" in subscription.complaint().lower()


@pytest.mark.parametrize("pair", [[Parameter(RELIABILITY, value="often")]], indirect=True)
def test_a_wrong_override_is_named(pair: Pair) -> None:
    with pytest.raises(MagicFuseError, match=r"qos_overrides of /cam .* `often`"):
        pair.subscribe()
    assert not list(pair.node.subscriptions)
