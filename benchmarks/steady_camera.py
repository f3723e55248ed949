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

import struct
from collections.abc import Mapping
from time import time_ns
from typing import Any

import numpy as np
from bench_rig import camera_image
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image
from soak import MAX_PERIODS, OUTCOMES, SIZES, Soak
from std_msgs.msg import Float32

from magicfuse_ros.ros import qos
from magicfuse_ros.ros.session import Session

LOSSES = ("lost", "refused", "failed", "idle", "reloads")
MOST_UNFAIR = 1 / 500
SLACK = 3  # images, of what two nodes count in about the same second
SIZE = SIZES[1]


class Steady:
    """A camera without faults, driven by a timer of the session.

    Attributes:
        sent: images.
        arrived: results.
        unfair: images that were replaced while `rival` got more through.
        disorder: results that came twice, out of order, or of an image that it did not send.
        ages_ms: age of each result when it was published, in ms.
        report: the node's latest diagnostics.
    """

    def __init__(self, session: Session, namespace: str, rate: float, rival: Soak) -> None:
        self.name = f"{namespace}/fuse_node"
        self.sent = self.arrived = self.disorder = self.unfair = 0
        self._sent_in_all = 0
        self.ages_ms: list[float] = []
        self._rival = rival
        self._rival_fused = 0
        self.report: Mapping[str, str] = {}
        self._stamps: set[int] = set()
        self._last_arrived_ns = 0
        self._message = camera_image(*SIZE)
        self._period_s = 1 / rate
        self._session = session
        node = session.node
        self._publisher = node.create_publisher(Image, f"{namespace}/image_raw", qos.images())
        deep = qos.images()
        deep.depth = 100
        node.create_subscription(Image, f"{self.name}/mag_image", self._on_image, deep, raw=True)
        ages = f"{self.name}/debug/age_ms"
        node.create_subscription(Float32, ages, lambda age: self.ages_ms.append(age.data), deep)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._timer = node.create_timer(self._period_s, self.send)

    def connected(self) -> bool:
        """Return whether the node listens, so it is active."""
        return bool(self._publisher.get_subscription_count() > 0)

    def send(self) -> None:
        """Send an image of this moment."""
        now = time_ns()
        self._message.header.stamp.sec, self._message.header.stamp.nanosec = divmod(now, 10**9)
        self._stamps.add(now)
        self._publisher.publish(self._message)
        self.sent += 1
        self._sent_in_all += 1

    def _on_image(self, message: bytes) -> None:
        seconds, nanoseconds = struct.unpack_from("<iI", message, 4)  # CDR: the header's stamp
        stamp_ns = seconds * 10**9 + nanoseconds
        mine = stamp_ns in self._stamps and stamp_ns > self._last_arrived_ns
        self.disorder += not mine
        self._last_arrived_ns = stamp_ns
        self.arrived += 1

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        (status,) = array.status
        if status.hardware_id != self.name:
            return
        dropped, fused = self.count("dropped"), self.count("fused")
        self.report = {value.key: value.value for value in status.values}
        dropped, fused = self.count("dropped") - dropped, self.count("fused") - fused
        before, self._rival_fused = self._rival_fused, int(self._rival.report.get("fused", 0))
        rival = self._rival_fused - before
        if rival < 0:  # it was activated again
            rival = self._rival_fused
        if rival > fused + SLACK:
            self.unfair += dropped

    def count(self, name: str) -> int:
        """Return one of the node's counters."""
        return int(self.report.get(name, 0))

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

    def settled(self) -> bool:
        """Return whether the node has told what came of every image."""
        return self._sent_in_all == sum(self.count(name) for name in ("lost", *OUTCOMES))


def nothing_lost(found: Mapping[str, Any]) -> bool:
    """Return whether a camera without faults lost nothing; soak_cameras.py says what that means."""
    return (
        not any(found[name] for name in (*LOSSES, "twice_or_out_of_order"))
        and found["sent"] == found["received"] == found["fused"] + found["dropped"]
        and found["arrived"] == found["fused"]
        and found["replaced_while_the_first_got_more"] <= MOST_UNFAIR * found["sent"]
    )
