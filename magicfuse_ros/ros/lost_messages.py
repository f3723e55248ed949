"""Messages that were published and never came: gaps in the publishers' sequence numbers.

A reader whose queue is full throws away the oldest message, and rclpy has no event that tells of
it: `message_lost` does not, for a reliable reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.subscription import Subscription

# Callbacks with a second argument: from Jazzy on. What it must say for this: from Kilted on.
SUPPORTED = hasattr(Subscription, "CallbackType")
_PUBLISHERS = 16  # that are remembered; those of a camera that restarts now and then are many


class LostMessages:
    """Follows the publishers of one topic. One thread uses it."""

    def __init__(self) -> None:
        self._latest: dict[bytes, int] = {}

    def before(self, info: Mapping[str, Any]) -> int:
        """Return how many messages were lost between this one and its publisher's last one.

        Args:
            info: what rclpy says of a message, each of which must come here.

        Returns:
            0 for the first one of a publisher, whatever its number: it may have published before
            this subscription was there. 0 where rclpy does not say what is needed.
        """
        publisher, number = info.get("publisher_gid"), info.get("publication_sequence_number")
        if publisher is None or number is None:
            return 0
        latest = self._latest.pop(publisher["data"], None)
        self._latest[publisher["data"]] = number
        if len(self._latest) > _PUBLISHERS:
            del self._latest[next(iter(self._latest))]  # the one not heard of for the longest time
        return 0 if latest is None else max(0, number - latest - 1)
