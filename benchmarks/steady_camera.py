# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A camera without faults beside a faulty one, for soak_cameras.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from bench_rig import DEEP, Camera, stamp_of
from sensor_msgs.msg import Image
from soak import MAX_PERIODS, Soak

from magicfuse_ros.ros.session import Session

LOSSES = ("lost", "refused", "failed", "idle", "reloads")
MOST_UNFAIR = 1 / 500
SLACK = 3  # images, of what two nodes count in about the same second


class Steady(Camera):
    """A camera without faults, driven by a timer of the session.

    Attributes:
        sent: images.
        arrived: results.
        unfair: images that were replaced while `rival` got more through.
        disorder: results that came twice, out of order, or of an image that it did not send.
    """

    def __init__(self, session: Session, namespace: str, rate: float, rival: Soak) -> None:
        super().__init__(session, namespace, DEEP.depth)
        self.sent = self.arrived = self.disorder = self.unfair = 0
        self._rival = rival
        self._rival_fused = 0
        self._stamps: set[int] = set()
        self._last_arrived_ns = 0
        self._period_s = 1 / rate
        node = session.node
        node.create_subscription(Image, f"{self.name}/mag_image", self._on_image, DEEP, raw=True)
        self._timer = node.create_timer(self._period_s, self.send)

    def send(self) -> int:
        """Send an image of this moment and return its stamp, ns."""
        now = super().send()
        self._stamps.add(now)
        self.sent += 1
        return now

    def _on_image(self, message: bytes) -> None:
        stamp_ns = stamp_of(message)
        mine = stamp_ns in self._stamps and stamp_ns > self._last_arrived_ns
        self.disorder += not mine
        self._last_arrived_ns = stamp_ns
        self.arrived += 1

    def _told(self, report: Mapping[str, str]) -> None:
        dropped, fused = self.count("dropped"), self.count("fused")
        super()._told(report)
        dropped, fused = self.count("dropped") - dropped, self.count("fused") - fused
        before, self._rival_fused = self._rival_fused, int(self._rival.report.get("fused", 0))
        rival = self._rival_fused - before
        if rival < 0:  # it was activated again
            rival = self._rival_fused
        if rival > fused + SLACK:
            self.unfair += dropped

    def stop(self) -> None:
        """Send nothing more."""
        self._timer.cancel()

    def go_on(self) -> None:
        """Send again, and count from here on."""
        self.sent = self.arrived = self.disorder = self.unfair = 0
        self.ages_ms.clear()
        self._before = {name: self.count(name) for name in ("received", "fused", "dropped")}
        self._before |= {name: self.count(name) for name in LOSSES}
        self._timer.reset()

    def complete(self) -> bool:
        """Return whether all results have arrived."""
        return self.arrived == self.count("fused") - self._before["fused"]

    def figures(self) -> dict[str, Any]:
        """Return the counts since `go_on`."""
        found = {name: self.count(name) - before for name, before in self._before.items()}
        ages = {f"p{p}": float(np.percentile(self.ages_ms, p)) for p in (50, 95, 99)}
        return {
            "sent": self.sent,
            **found,
            "replaced_while_the_first_got_more": self.unfair,
            "arrived": self.arrived,
            "twice_or_out_of_order": self.disorder,
            "age_ms": ages,
            "age_limit_ms": MAX_PERIODS * self._period_s * 1e3,
        }


def nothing_lost(found: Mapping[str, Any]) -> bool:
    """Return whether a camera without faults lost nothing; soak_cameras.py says what that means."""
    return (
        not any(found[name] for name in (*LOSSES, "twice_or_out_of_order"))
        and found["sent"] == found["received"] == found["fused"] + found["dropped"]
        and found["arrived"] == found["fused"]
        and found["replaced_while_the_first_got_more"] <= MOST_UNFAIR * found["sent"]
    )
