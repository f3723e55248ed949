# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Gaps in the sequence numbers that real publishers give to their messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Int32

from magicfuse_ros.ros.lost_messages import SUPPORTED, LostMessages
from magicfuse_ros.ros.session import Session
from ros_rig import TIMEOUT_S, Domain

QUEUE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class Reader:
    """A reliable subscription that is spun only when the test says so."""

    def __init__(self, session: Session) -> None:
        self.received: list[int] = []
        self.lost = 0
        self._session = session
        messages = LostMessages()

        def take(message: Int32, info: Mapping[str, Any]) -> None:
            self.received.append(message.data)
            self.lost += messages.before(info)

        self._subscription = session.node.create_subscription(Int32, "numbers", take, QUEUE)

    def publisher(self) -> Any:
        before = self._subscription.get_publisher_count()
        made = self._session.node.create_publisher(Int32, "numbers", QUEUE)
        self._wait(lambda: self._subscription.get_publisher_count() > before)
        self._wait(lambda: made.get_subscription_count() > 0)
        return made

    def destroy(self, publisher: Any) -> None:
        self._session.node.destroy_publisher(publisher)

    def take(self, last: int) -> None:
        """Handle messages until `last` arrives; `received` contains only these."""
        self.received.clear()
        self._wait(lambda: last in self.received)

    def _wait(self, done: Callable[[], bool]) -> None:
        assert self._session.spin_until(done, TIMEOUT_S)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    if not SUPPORTED:
        pytest.skip("this rclpy tells nothing of a message")
    domain = Domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain.number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with Session("reader") as session:
        yield Reader(session)
    domain.free()


def send(publisher: Any, *numbers: int) -> None:
    for number in numbers:
        publisher.publish(Int32(data=number))


def test_what_the_full_queue_threw_away_is_counted(reader: Reader) -> None:
    publisher = reader.publisher()
    send(publisher, 0)
    reader.take(last=0)
    send(publisher, *range(1, 26))
    reader.take(last=25)
    assert len(reader.received) + reader.lost == 25
    assert reader.lost >= 20  # 5 are in the queue


def test_several_publishers_are_no_loss(reader: Reader) -> None:
    first, second = reader.publisher(), reader.publisher()
    send(first, 1, 2, 3)
    reader.take(last=3)
    for number in range(4, 8):
        send(first, number)
        send(second, -number)
        reader.take(last=-number)
    assert reader.lost == 0


def test_a_publisher_that_restarts_is_no_loss(reader: Reader) -> None:
    first = reader.publisher()
    send(first, 1)
    reader.take(last=1)
    reader.destroy(first)
    second = reader.publisher()
    send(second, *range(2, 12))  # only 5 are left, and the first of them has number 6
    reader.take(last=11)
    assert reader.lost == 0
    send(second, *range(12, 22))
    reader.take(last=21)
    assert reader.lost >= 5


def info(publisher: int, number: int) -> dict[str, Any]:
    return {
        "publisher_gid": {"data": bytes([publisher])},
        "publication_sequence_number": number,
    }


def test_an_rclpy_that_does_not_tell_means_no_loss() -> None:
    lost = LostMessages()
    for told in ({}, {"source_timestamp": 1}, {**info(1, 5), "publication_sequence_number": None}):
        assert lost.before(told) == 0
    jazzy = {"publication_sequence_number": 1}, {"publication_sequence_number": 9}
    assert [lost.before(told) for told in jazzy] == [0, 0]


def test_publishers_of_long_ago_are_forgotten() -> None:
    lost = LostMessages()
    for publisher in range(100):
        assert lost.before(info(publisher, 1)) == 0
        assert lost.before(info(200, 2 * publisher)) == (0 if publisher == 0 else 1)
    assert lost.before(info(99, 3)) == 1
    assert lost.before(info(0, 50)) == 0
