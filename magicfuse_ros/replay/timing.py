# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Frame rates and ages from a bag that was recorded while `fuse_node` ran."""

from __future__ import annotations

from bisect import bisect_right
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicfuse_ros.media.bag_reader import header_stamp_ns, open_bag
from magicfuse_ros.percentiles import percentiles
from magicfuse_ros.topics import DIAGNOSTICS, MAG_IMAGE


@dataclass(frozen=True)
class Timing:
    """The timing of the fused frames in a bag.

    Attributes:
        fused: number of frames.
        fps: frames per second from the first to the last; 0 for fewer than two.
        age_ms: p50, p95 and p99 from the publication of the camera image to the arrival of MagImg
            in the bag; empty if nothing was fused.
    """

    fused: int
    fps: float
    age_ms: dict[str, float]


def timing(bag: Path, node: str, published: Mapping[int, Sequence[int]] | None = None) -> Timing:
    """Compute the timing from the arrivals of MagImg.

    Args:
        bag: the bag.
        node: full name of the node.
        published: for each stamp, the rising times at which its images were published, all in ns;
            None if the stamp itself is that time.

    Raises:
        MediaError: if the bag cannot be read.
    """
    times, ages = [], []
    with open_bag(bag) as reader:
        fused = [c for c in reader.counts if c.topic == f"{node}/{MAG_IMAGE}"]
        for _, time_ns, cdr in reader.messages(fused):
            stamp_ns = header_stamp_ns(cdr)
            times.append(time_ns)
            if published is None:
                ages.append((time_ns - stamp_ns) / 1e6)
                continue
            candidates = published.get(stamp_ns, ())
            # a loop publishes a stamp many times: take the latest before the arrival
            if index := bisect_right(candidates, time_ns):
                ages.append((time_ns - candidates[index - 1]) / 1e6)
    span_s = (times[-1] - times[0]) / 1e9 if times else 0.0
    fps = (len(times) - 1) / span_s if span_s else 0.0
    return Timing(len(times), fps, percentiles(ages))


def diagnostics(bag: Path, node: str) -> list[dict[str, str]]:
    """Return the values of every report of the node, by key, in order.

    Raises:
        MediaError: if the bag cannot be read.
    """
    reports = []
    with open_bag(bag) as reader:
        for raw in reader.messages([c for c in reader.counts if c.topic == DIAGNOSTICS]):
            message: Any = reader.deserialize(raw)
            ours = [s for s in message.status if s.name.partition(":")[0] == node.lstrip("/")]
            if ours:
                reports.append({v.key: v.value for status in ours for v in status.values})
    return reports


def latest(reports: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the latest value of every key: a report lacks ages if its last 10 s had no result.

    Of the causes of refusal only the latest: one may have moved into `other` since.
    """
    older = [{k: v for k, v in r.items() if not k.startswith("refused: ")} for r in reports[:-1]]
    return dict(ChainMap(*reports[-1:], *reversed(older)))
