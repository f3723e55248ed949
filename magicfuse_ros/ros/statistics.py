# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The counters and timings of `fuse_node` for its diagnostics."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from magicfuse_ros.percentiles import percentiles
from magicfuse_ros.ros.causes import Causes

WINDOW_S = 10.0
OTHER_CLOCK_S = 3600.0  # a greater age means that the stamp is from another clock


def silent_after_s(period_s: float) -> float:
    """Return for how many seconds a topic may be quiet: three periods of its camera, at least 2."""
    return max(2.0, 3 * period_s)


@dataclass(frozen=True)
class Snapshot:
    """Counts since activation; rates, ages and times over the last `WINDOW_S` seconds.

    Attributes:
        lost: images that were published but did not arrive: lost on the way, or dropped by this
            node's own queue; 0 if rclpy does not report it (before Kilted).
        received: images that arrived.
        fused: images whose results were published.
        dropped: images that were not started because there was no time.
        drops: `dropped` by cause.
        idle: images whose results nobody wanted.
        failed: images lost because of a bug in the fuser or a publisher.
        reloads: how often the networks were reloaded because image after image was lost.
        refused: images that could not be decoded or fused, by cause (see `Causes`).
        last_refusal: reason of the latest refusal; empty if there was none.
        fps: fused images per second.
        steps: K of the latest frame; 0 before the first.
        delay_ms: time from an image's arrival at the node to publication, p50, p95 and p99; empty
            if no image was fused.
        age_ms: the same from the camera's stamp, over images stamped with the node's clock; empty
            if there are none.
        ahead_s: median of how far stamps are ahead of the node's clock; 0 if most are not.
        other_clock: whether most stamps are from a clock that has nothing to do with the node's.
        stages_ms: mean time of each stage.
        last_received_s: seconds since the latest image; None before the first.
        unanswered_s: seconds for which images have arrived without a wanted result coming out; 0
            otherwise.
    """

    lost: int
    received: int
    fused: int
    dropped: int
    drops: Mapping[str, int]
    idle: int
    failed: int
    reloads: int
    refused: Mapping[str, int]
    last_refusal: str
    fps: float
    steps: int
    delay_ms: Mapping[str, float]
    age_ms: Mapping[str, float]
    ahead_s: float
    other_clock: bool
    stages_ms: Mapping[str, float]
    last_received_s: float | None
    unanswered_s: float


class Statistics:
    """Counters that several threads write. Times are seconds of a steady clock."""

    def __init__(self, now: float) -> None:
        self._lock = threading.Lock()
        self._start = now
        self._counts: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._refused = Causes()
        self._frames: deque[tuple[float, float, float | None, Mapping[str, float]]] = deque()
        self._last_received: float | None = None
        self._interval = 0.0  # between the last two images
        self._unanswered_since: float | None = None
        self._steps = 0

    def received(self, now: float) -> None:
        """Count an image that arrived."""
        with self._lock:
            self._counts["received"] += 1
            interval = 0.0 if self._last_received is None else now - self._last_received
            if self._unanswered_since is None or interval > silent_after_s(self._interval):
                self._unanswered_since = now
            self._last_received, self._interval = now, interval

    def lost(self, count: int) -> None:
        """Count images that did not arrive."""
        with self._lock:
            self._counts["lost"] += count

    def dropped(self, cause: str) -> None:
        """Count an image that was not started."""
        with self._lock:
            self._drops[cause] += 1

    def idle(self) -> None:
        """Count an image whose results nobody wanted."""
        with self._lock:
            self._counts["idle"] += 1
            self._unanswered_since = None

    def count(self, what: str) -> None:
        """Add one to `failed` or `reloads`."""
        with self._lock:
            self._counts[what] += 1

    def refused(self, reason: str) -> bool:
        """Count a refused image; return whether to log it, because it is the first of its cause."""
        with self._lock:
            return self._refused.add(reason)

    def fused(
        self,
        now: float,
        delay_s: float,
        age_s: float | None,
        steps: int,
        stages_ms: Mapping[str, float],
    ) -> None:
        """Count a published frame.

        Args:
            now: the time of publication.
            delay_s: since the image's arrival.
            age_s: since its stamp, below 0 if that is ahead of this node's clock; None if it has
                no stamp.
            steps: K.
            stages_ms: time of each stage.
        """
        with self._lock:
            self._counts["fused"] += 1
            self._unanswered_since = None
            self._steps = steps
            self._frames.append((now, delay_s, age_s, stages_ms))
            self._forget(now)

    def snapshot(self, now: float) -> Snapshot:
        """Return all values as of `now`."""
        with self._lock:
            self._forget(now)
            frames = list(self._frames)
            delays = [1000.0 * delay for _, delay, _, _ in frames]
            stamped = [age for _, _, age, _ in frames if age is not None]
            known = [age for age in stamped if abs(age) < OTHER_CLOCK_S]
            ages = [1000.0 * age for age in known if age >= 0]
            stages = [times for *_, times in frames]
            last, since = self._last_received, self._unanswered_since
            return Snapshot(
                lost=self._counts["lost"],
                received=self._counts["received"],
                fused=self._counts["fused"],
                dropped=sum(self._drops.values()),
                drops=dict(self._drops),
                idle=self._counts["idle"],
                failed=self._counts["failed"],
                reloads=self._counts["reloads"],
                refused=dict(self._refused.counts),
                last_refusal=self._refused.latest,
                fps=len(frames) / max(min(WINDOW_S, now - self._start), 1.0),
                steps=self._steps,
                delay_ms=percentiles(delays),
                age_ms=percentiles(ages),
                ahead_s=max(0.0, -float(np.median(known))) if known else 0.0,
                other_clock=2 * len(known) < len(stamped),
                stages_ms={
                    name: float(np.mean([times[name] for times in stages if name in times]))
                    for name in (stages[-1] if stages else ())
                },
                last_received_s=None if last is None else now - last,
                unanswered_s=0.0 if since is None else now - since,
            )

    def _forget(self, now: float) -> None:
        while self._frames and self._frames[0][0] < now - WINDOW_S:
            self._frames.popleft()
