# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Counts lost messages: gaps in the sequence numbers of the publishers.

A reader with a full queue drops the oldest message, and rclpy has no event for it: `message_lost`
does not fire for a reliable reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.subscription import Subscription

# Jazzy and later pass callbacks a second argument; Kilted and later put the needed fields in it.
SUPPORTED = hasattr(Subscription, "CallbackType")
_PUBLISHERS = 16  # to remember; a camera that restarts has many over time


class LostMessages:
    """Follows the publishers of one topic. One thread uses it."""

    def __init__(self) -> None:
        self._latest: dict[bytes, int] = {}

    def before(self, info: Mapping[str, Any]) -> int:
        """Return how many messages were lost between this one and its publisher's last one.

        Args:
            info: rclpy's information on a message; pass that of every message.

        Returns:
            0 for a publisher's first message, whatever its number: the publisher may be older than
            this subscription. 0 if rclpy does not give the needed fields.
        """
        publisher, number = info.get("publisher_gid"), info.get("publication_sequence_number")
        if publisher is None or number is None:
            return 0
        latest = self._latest.pop(publisher["data"], None)
        self._latest[publisher["data"]] = number
        if len(self._latest) > _PUBLISHERS:
            del self._latest[next(iter(self._latest))]  # the one silent for the longest time
        return 0 if latest is None else max(0, number - latest - 1)
