# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""QoS by ROS's standard override parameters, and the Fast DDS profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from magicfuse_ros.playback import children
from ros_rig import CAMERA, ROOT, Rig, image

PROFILE = {children.profile_variable(): str(ROOT / "config" / "fastdds.xml")}
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def test_overrides_and_profile(tmp_path: Path, tiny_bundle: Path) -> None:
    overrides: dict[str, Any] = {
        f"qos_overrides.{CAMERA}.subscription.reliability": "best_effort",
        f"qos_overrides.{Rig.name}/mag_image.publisher.reliability": "best_effort",
        f"qos_overrides.{Rig.name}/mag_image.publisher.depth": 2,
    }
    with Rig(tmp_path, PROFILE, bundle=str(tiny_bundle), **overrides) as rig:
        rig.activate()
        (subscription,) = rig.node.get_subscriptions_info_by_topic(CAMERA)
        assert subscription.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        reliability = {
            topic: publisher.qos_profile.reliability
            for topic in ("mag_image", "restored_image")
            for publisher in rig.node.get_publishers_info_by_topic(f"{rig.name}/{topic}")
        }
        assert reliability == {
            "mag_image": ReliabilityPolicy.BEST_EFFORT,
            "restored_image": ReliabilityPolicy.RELIABLE,
        }
        assert rig.parameter(f"qos_overrides.{Rig.name}/mag_image.publisher.depth") == 2

        received = rig.subscribe("mag_image", Image, BEST_EFFORT)
        camera = rig.node.create_publisher(Image, CAMERA, BEST_EFFORT)
        assert rig.spin_until(lambda: camera.get_subscription_count() > 0)
        for stamp in range(1, 50):
            camera.publish(image(stamp))
            if rig.spin_until(lambda: bool(received), 0.2):
                break
        assert received, rig.output()

        # the profile's shared memory, which has room for images
        maps = Path(f"/proc/{rig.process.pid}/maps").read_text().splitlines()
        ends = [line.split()[0].split("-") for line in maps if "/dev/shm/" in line]
        assert max(int(end, 16) - int(start, 16) for start, end in ends) >= 64 * 2**20


@pytest.mark.parametrize(
    ("override", "transition", "state"),
    [
        (f"{Rig.name}/mag_image.publisher.reliability", "configure", "unconfigured"),
        (f"{CAMERA}.subscription.reliability", "activate", "inactive"),
    ],
)
def test_a_wrong_override_is_named(
    tmp_path: Path, tiny_bundle: Path, override: str, transition: str, state: str
) -> None:
    parameters: dict[str, Any] = {f"qos_overrides.{override}": "often"}
    with Rig(tmp_path, bundle=str(tiny_bundle), **parameters) as rig:
        transitions = ["configure", "activate"]
        for step in transitions[: transitions.index(transition)]:
            assert rig.transition(step)
        assert not rig.transition(transition)
        assert rig.state() == state
        if state == "unconfigured":  # nothing made before the failure is left
            labels = f"{rig.name}/segmentation/label_info"
            assert rig.spin_until(lambda: rig.node.count_publishers(labels) == 0)
        report = rig.next_diagnostics()
        assert report["level"] == "2"
        assert "qos_overrides of" in report["message"] and "`often`" in report["message"]
