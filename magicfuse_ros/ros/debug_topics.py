"""`~/debug/*`: the figures of every frame as plain numbers, to plot while driving."""

from __future__ import annotations

from collections.abc import Mapping

from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import PublisherEventCallbacks  # its own module differs by distribution
from rclpy.qos import QoSProfile
from std_msgs.msg import Float32

from magicfuse_ros.bundle import NETWORKS

STAGES = ("prepare", "waiting", *NETWORKS, "finish", "total")
NAMES = ("age_ms", "cost_ms", "steps", *(f"stage_ms/{stage}" for stage in STAGES))


class DebugTopics:
    """One Float32 topic a figure; nothing is sent where nobody listens."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        # Every event of a publisher makes every wait of the executor longer, and there are many
        # publishers; a subscriber of other QoS is told of it on its own side.
        silent = PublisherEventCallbacks(use_default_callbacks=False)
        self._publishers = {
            name: node.create_lifecycle_publisher(
                Float32, f"~/debug/{name}", QoSProfile(depth=10), event_callbacks=silent
            )
            for name in NAMES
        }

    def wanted(self) -> bool:
        """Say whether any of them has a subscriber."""
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
        """Take all topics back."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
