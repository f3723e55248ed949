# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What a replay records of a node."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float32

from magicfuse_ros.ros.recorder import TopicRecorder
from magicfuse_ros.ros.session import Session
from ros_rig import Domain


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    domain = Domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain.number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with Session("recorder") as made:
        yield made
    domain.free()


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_a_topic_is_recorded_as_its_node_publishes_it(
    session: Session, tmp_path: Path, reliability: str
) -> None:
    recorder = TopicRecorder(session.node, tmp_path / "bag", {"/age": Float32})
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
    publisher = session.node.create_publisher(Float32, "/age", qos)
    session.spin_until(lambda: session.node.count_publishers("/age") == 1, 10.0)
    recorder.match()
    assert session.spin_until(lambda: publisher.get_subscription_count() == 1, 10.0)
    publisher.publish(Float32(data=1.0))
    assert session.spin_until(lambda: recorder.counts["/age"] == 1, 10.0)
    recorder.close()
