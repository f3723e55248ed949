"""QoS profiles of `fuse_node`, and their standard overrides.

Every image topic takes ROS's own parameters `qos_overrides.<topic>.<publisher or subscription>.` +
`reliability`, `depth` or `history`, for example in a parameter file:

    qos_overrides:
      /front/image_raw:
        subscription:
          reliability: best_effort
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.exceptions import ParameterException
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from magicfuse_ros.errors import MagicFuseError

OVERRIDABLE = QoSOverridingOptions.with_default_policies()  # history, depth, reliability


# Functions, as rclpy writes the overrides into the profile that it is given.
def camera() -> QoSProfile:
    """Return the default of the subscriptions.

    Reliability and durability follow the publisher (see `MatchedSubscription`). The node takes
    every message off at once and keeps the newest, so that what is dropped is counted; a queue of
    one would drop images unseen.
    """
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def newest() -> QoSProfile:
    """Return the default of a subscription of which the newest message is enough."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def images() -> QoSProfile:
    """Return the default of the image topics: reliable, or large images get lost.

    A few frames for a subscriber that is busy for a moment.
    """
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """Return the profile of what late subscribers must get, too."""
    return QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )


@contextmanager
def checked_overrides(topic: str) -> Iterator[None]:
    """Name the topic where an override in this block cannot be used.

    Raises:
        MagicFuseError: instead of what rclpy raises for a wrong value or type.
    """
    try:
        yield
    except (ParameterException, RuntimeError, ValueError, AssertionError, AttributeError) as error:
        raise MagicFuseError(f"the qos_overrides of {topic} cannot be used: {error}") from error
