# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The counts of `ground_cloud_node`, and what it reports on /diagnostics."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from statistics import median
from time import monotonic

from magicfuse_ros.ros.causes import Causes
from magicfuse_ros.ros.diagnostics import Diagnosis, Losses, refusal_values
from magicfuse_ros.ros.statistics import silent_after_s

_RECENT = 100


class GroundDiagnostics:
    """Counts since the node's start; one thread uses it.

    Attributes:
        counts: numbers of masks: `lost` (published, but not received; 0 before Kilted), `received`,
            `published`, `idle` (nobody wanted a result) and `failed` (lost because of a bug).
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(lost=0, received=0, published=0, idle=0, failed=0)
        self._refused = Causes()
        self._losses = Losses()
        self._times_ms: deque[float] = deque(maxlen=_RECENT)
        self._last_mask: float | None = None
        self._interval = 0.0  # seconds between the last two masks

    def received(self) -> None:
        """Count a mask that arrived."""
        self.counts["received"] += 1
        now = monotonic()
        self._interval = 0.0 if self._last_mask is None else now - self._last_mask
        self._last_mask = now

    def published(self, ms: float) -> None:
        """Count a mask whose results were published, and the time it took."""
        self.counts["published"] += 1
        self._times_ms.append(ms)

    def refused(self, reason: str) -> bool:
        """Count a refused mask; return whether to log it, because it is the first of its cause."""
        return self._refused.add(reason)

    def diagnosis(self, settings: Mapping[str, str], problems: Sequence[str]) -> Diagnosis:
        """Return what to report.

        Args:
            settings: settings in use.
            problems: reasons why no input arrives or why it is not used.
        """
        values = {**settings, **{name: str(count) for name, count in self.counts.items()}}
        values |= refusal_values(self._refused.counts, self._refused.latest)
        if self._times_ms:
            values["projection_ms"] = f"{median(self._times_ms):.2f}"
        last = self._last_mask
        silent = last is None or monotonic() - last > silent_after_s(self._interval)
        found = ["no mask arrives"] if silent else []
        lost = self._refused.total + self.counts["failed"] + self.counts["lost"]
        found += self._losses.problems(lost, "masks")
        return Diagnosis(values=values, problems=[*found, *problems])
