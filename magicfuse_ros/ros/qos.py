# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""QoS profiles of the nodes, and their standard overrides.

Every image topic accepts ROS's standard parameters `qos_overrides.<topic>.<publisher or
subscription>.` + `reliability`, `depth` or `history`, for example in a parameter file:

    qos_overrides:
      /front/image_raw:
        subscription:
          reliability: best_effort
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.exceptions import ParameterException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.publisher import PublisherEventCallbacks  # its own module depends on the distribution
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from magicfuse_ros.errors import MagicFuseError

OVERRIDABLE = QoSOverridingOptions.with_default_policies()  # history, depth, reliability


# These are functions, because rclpy writes the overrides into the profile that it gets.
def camera() -> QoSProfile:
    """Return the default profile of the camera subscriptions.

    Reliability and durability follow the publisher (see `MatchedSubscription`). The node takes each
    message off the queue at once and keeps only the newest, so that it can count the drops; a queue
    of one would drop images uncounted.
    """
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def newest() -> QoSProfile:
    """Return the default profile of a subscription that needs only the newest message."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def images() -> QoSProfile:
    """Return the default profile of the image topics: reliable, or large images would get lost.

    It keeps a few frames for a subscriber that is busy for a moment.
    """
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """Return the profile of topics whose last message late subscribers must also get."""
    return QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )


def no_events() -> PublisherEventCallbacks:
    """Return empty callbacks for a publisher of a node that gets images.

    Every event of a publisher lengthens every wait of the executor, and rclpy waits twice for each
    image: its default events of all topics cost 1 ms of CPU time per image. A subscriber with an
    incompatible QoS is told on its own side.
    """
    return PublisherEventCallbacks(use_default_callbacks=False)


@contextmanager
def checked_overrides(topic: str) -> Iterator[None]:
    """Name the topic in the error if an override in this block cannot be used.

    Raises:
        MagicFuseError: instead of rclpy's exception for a wrong value or type.
    """
    try:
        yield
    except rclpy_implementation.RCLError:  # DDS could not do it, whatever the overrides
        raise
    except (ParameterException, RuntimeError, ValueError, AssertionError, AttributeError) as error:
        raise MagicFuseError(f"the qos_overrides of {topic} cannot be used: {error}") from error
