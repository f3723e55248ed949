# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Subscriptions whose QoS matches the publishers, and the reasons why a topic is not received.

Reliability and durability follow what all publishers of the topic offer: a reliable subscription
gets nothing from a best-effort camera, a volatile one misses a camera_info that was latched before
it subscribed, and a best-effort one loses large images. ROS's own reliability override takes
precedence.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import WeakMethod

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind
from rclpy.subscription import (  # the second one's module depends on the distribution
    Subscription,
    SubscriptionEventCallbacks,
)

from magicfuse_ros.ros import qos

_BY_PUBLISHER = "system_default"  # value of the override parameter if there is no override
_DISCOVERY_S = 3.0  # a publisher that is there may not have been discovered before
_OTHERS = QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))


class MatchedSubscription:
    """A subscription that is recreated if its publishers require another QoS."""

    def __init__(
        self,
        node: Node,
        message_type: Any,
        topic: str,
        callback: Callable[..., None],
        make_qos: Callable[[], QoSProfile],
    ) -> None:
        """Subscribe.

        Args:
            node: the node that subscribes.
            message_type: message class of the topic.
            topic: the resolved topic, that is, its full name after remapping.
            callback: takes a message, or a message and rclpy's information on it.
            make_qos: makes the profile; its reliability and durability apply while nobody publishes
                the topic.

        Raises:
            MagicFuseError: if a QoS override cannot be used; there is no subscription then.
        """
        self.topic = topic
        self._node = node
        self._type = message_type
        self._callback = callback
        self._make_qos = make_qos
        self._since = monotonic()
        self._override = self._read_override()
        self._subscription = self._subscribe(self._wanted(self._make_qos()))

    def match(self) -> None:
        """Recreate the subscription if the publishers' QoS has changed."""
        present = self._subscription.qos_profile
        wanted = self._wanted(self._make_qos(), present)
        if (wanted.reliability, wanted.durability) != (present.reliability, present.durability):
            before, self._subscription = self._subscription, self._subscribe(wanted)
            self._node.destroy_subscription(before)

    def published(self) -> bool:
        """Return whether anybody publishes the topic, with any type."""
        return bool(self._node.count_publishers(self.topic))

    def complaint(self) -> str:
        """Return why no messages arrive; empty if nothing is wrong."""
        found = self._node.get_publishers_info_by_topic(self.topic)
        if not found:
            return f"nobody publishes {self.topic}" if self.settled() else ""
        expected = type_name(self._type)
        problems = []
        for publisher in found:
            name = node_name(publisher)
            if publisher.topic_type != expected:
                problem = f"{name} publishes {self.topic} as {publisher.topic_type}, not {expected}"
            else:
                mine = self._subscription.qos_profile
                fit, why = qos_check_compatible(publisher.qos_profile, mine)
                if fit != QoSCompatibility.ERROR:
                    continue
                why = why.replace("ERROR: ", "").strip("; ")
                problem = f"{name} publishes {self.topic} with an incompatible QoS: {why}"
            if problem not in problems:
                problems.append(problem)
        return "; ".join(problems)

    def settled(self) -> bool:
        """Return whether it is old enough for a publisher to have been discovered."""
        return monotonic() - self._since >= _DISCOVERY_S

    def several(self) -> str:
        """Return who publishes the topic, if more than one does; empty otherwise."""
        found = self._node.get_publishers_info_by_topic(self.topic)
        if len(found) < 2:
            return ""
        names = sorted(map(node_name, found))
        return f"several publishers of {self.topic}: {', '.join(names)}; expected one"

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _read_override(self) -> ReliabilityPolicy | None:
        name = f"qos_overrides.{self.topic}.subscription.reliability"
        with qos.checked_overrides(self.topic):
            if not self._node.has_parameter(name):
                descriptor = ParameterDescriptor(
                    read_only=True,
                    description=f"reliability for {self.topic}; {_BY_PUBLISHER}: the publisher's",
                )
                self._node.declare_parameter(name, _BY_PUBLISHER, descriptor)
            value = self._node.get_parameter(name).value
            if value == _BY_PUBLISHER:
                return None
            if value not in ("reliable", "best_effort"):
                raise ValueError(f"reliability is `{value}`; expected reliable or best_effort")
            return ReliabilityPolicy[value.upper()]

    def _wanted(self, profile: QoSProfile, present: QoSProfile | None = None) -> QoSProfile:
        offers = [
            publisher.qos_profile
            for publisher in self._node.get_publishers_info_by_topic(self.topic)
            if publisher.topic_type == type_name(self._type)
        ]
        if offers:
            best_effort = any(o.reliability == ReliabilityPolicy.BEST_EFFORT for o in offers)
            latched = all(o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
            profile.reliability = ReliabilityPolicy["BEST_EFFORT" if best_effort else "RELIABLE"]
            profile.durability = DurabilityPolicy["TRANSIENT_LOCAL" if latched else "VOLATILE"]
        elif present is not None:  # an absent camera will come back with the same QoS
            profile.reliability, profile.durability = present.reliability, present.durability
        if self._override is not None:
            profile.reliability = self._override
        return profile

    def _subscribe(self, profile: QoSProfile) -> Subscription:
        # At once: a best-effort camera's images would be lost until the next regular match.
        # rclpy's default callback would only warn. A strong reference would make a cycle, and
        # whatever the callback uses, such as networks, would wait for the garbage collector.
        match = WeakMethod(self.match)
        events = SubscriptionEventCallbacks(
            incompatible_qos=lambda _: found() if (found := match()) else None,
            use_default_callbacks=False,
        )
        with qos.checked_overrides(self.topic):
            return self._node.create_subscription(
                self._type,
                self.topic,
                self._callback,
                profile,
                qos_overriding_options=_OTHERS,
                event_callbacks=events,
            )


def node_name(end: Any) -> str:
    """Return the full name of the node behind a publisher or a subscription."""
    name = f"{end.node_namespace.rstrip('/')}/{end.node_name}"
    return "somebody" if "UNKNOWN" in name else name  # not discovered yet, or not a ROS node


def type_name(message_type: Any) -> str:
    """Return the ROS name of a message class, such as sensor_msgs/msg/Image."""
    package = message_type.__module__.split(".")[0]
    return f"{package}/msg/{message_type.__name__}"


def published_types(node: Node, topic: str) -> set[str]:
    """Return the types with which a topic is published."""
    return {publisher.topic_type for publisher in node.get_publishers_info_by_topic(topic)}
