# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`~/debug/*`: the figures of every frame as plain numbers, to plot while driving."""

from __future__ import annotations

from collections.abc import Mapping

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from std_msgs.msg import Float32

from magicfuse_ros.bundle import NETWORKS
from magicfuse_ros.ros import qos

STAGES = ("prepare", "waiting", *NETWORKS, "finish", "total")
NAMES = ("age_ms", "cost_ms", "steps", *(f"stage_ms/{stage}" for stage in STAGES))


class DebugTopics:
    """One Float32 topic per figure; topics without subscribers get nothing."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers = {
            name: node.create_lifecycle_publisher(
                Float32, f"~/debug/{name}", QoSProfile(depth=10), event_callbacks=qos.no_events()
            )
            for name in NAMES
        }

    def wanted(self) -> bool:
        """Return whether any of them has a subscriber."""
        return any(p.get_subscription_count() > 0 for p in self._publishers.values())

    def publish(
        self, age_s: float | None, cost_s: float, steps: int, stages_ms: Mapping[str, float]
    ) -> None:
        """Send the figures of one frame; an unknown age is not sent."""
        figures = {f"stage_ms/{stage}": ms for stage, ms in stages_ms.items()}
        figures |= {"cost_ms": 1e3 * cost_s, "steps": float(steps)}
        if age_s is not None:
            figures["age_ms"] = 1e3 * age_s
        for name, value in figures.items():
            publisher = self._publishers[name]
            if publisher.get_subscription_count() > 0:
                publisher.publish(Float32(data=float(value)))

    def destroy(self) -> None:
        """Remove all topics."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
