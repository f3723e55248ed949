# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Plays a bag through the real `fuse_node` in real time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.bag_reader import COMPRESSED
from magicfuse_ros.replay.timing import diagnostics, latest, timing

_PUBLISHED = "published.txt"


@dataclass(frozen=True)
class Live:
    """How to play a bag.

    Attributes:
        rate: seconds of the bag per second of real time.
        loop: number of rounds; 0: until Ctrl-C.
        start_s: seconds to skip at the start of the bag.
        duration_s: seconds of the bag to play; None: to its end.
        node: full name of the node.
        node_parameters: parameters of the node, besides those that the bag requires; None: a node
            is already running.
        domain: ROS domain. None: if the node is already running, that of the environment, else a
            separate one on this machine only.
    """

    rate: float
    loop: int
    start_s: float
    duration_s: float | None
    node: str
    node_parameters: Mapping[str, Any] | None
    domain: int | None


def replay_live(source: BagSource, live: Live, out: Path, console: Console) -> dict[str, Any]:
    """Play a bag into the node and record its outputs into `out`/bag.

    Args:
        source: the bag.
        live: how to play it.
        out: an existing folder.
        console: for the progress.

    Returns:
        Counts, fps, ages and the node's last diagnostics, for a JSON report; also "stopped" if
        Ctrl-C came before the last round's end. Each image sent was fused, refused, failed, or
        dropped: replaced by a newer image, or lost on the way. Images that the bag announces but
        does not hold count as missing, in every round.

    Raises:
        MagicFuseError: if ROS is missing, or the node or the player fails.
    """
    log = out / "log"
    log.mkdir(exist_ok=True)
    _choose_domain(live, log)
    try:
        from magicfuse_ros.playback.play_and_record import Play, play_and_record
    except ImportError as error:
        raise MagicFuseError(
            f"a replay in real time needs ROS 2 ({error}); without it there is --offline"
        ) from error
    parameters = None
    if live.node_parameters is not None:
        transport = "compressed" if source.msgtype == COMPRESSED else "raw"
        forced = {"use_sim_time": True, "image_transport": transport}
        parameters = {**live.node_parameters, **forced}
    play = Play(
        player="replay_node",
        player_parameters={
            "bag": str(Path(source.name).resolve()),
            "topic": source.topic,
            "start": float(live.start_s),
            "duration": float(live.duration_s or 0.0),
            "rate": float(live.rate),
            "loop": live.loop,
            "wait_for": live.node,
            "wait_s": 600.0 if parameters else 10.0,
            "published": str((log / _PUBLISHED).resolve()),
        },
        node=live.node,
        node_parameters=parameters,
        image=source.played_topic,
    )
    if source.played_topic != source.base_topic:
        line = f"{source.base_topic} is played as {source.played_topic}, a name that ROS 2 allows"
        console.print(Text(line), soft_wrap=True)
    played = play_and_record(play, len(source) * live.loop, out, console)

    measured = timing(out / "bag", live.node, _published(log / _PUBLISHED))
    reports = diagnostics(out / "bag", live.node) or [{}]
    node, before = latest(reports), reports[0]
    sent = int(played["sent"])
    counts = {"fused": measured.fused}
    for name in ("refused", "failed"):
        # a node that was already running also has counts from before
        counted = 0 if live.node_parameters is not None else int(before.get(name, 0))
        counts[name] = int(node.get(name, 0)) - counted
    frames = {"sent": sent, **counts, "dropped": max(0, sent - sum(counts.values()))}
    if missing := int(played["missing"]):
        frames["missing"] = missing
    stopped = {"stopped": "interrupted"} if played["interrupted"] and live.loop else {}
    return {
        **stopped,
        "frames": frames,
        "fps": round(measured.fps, 2),
        "age_ms": {name: round(age, 1) for name, age in measured.age_ms.items()},
        "late_ms": played["late_ms"],
        "skipped_s": played["skipped_s"],
        "damaged": played["damaged"],
        "node": node,
    }


def _choose_domain(live: Live, log: Path) -> None:
    if live.domain is not None:
        os.environ["ROS_DOMAIN_ID"] = str(live.domain)
    elif live.node_parameters is not None:
        from magicfuse_ros.playback.children import isolate

        isolate(log.resolve())


def _published(path: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for line in path.read_text().splitlines():
        stamp_ns, time_ns = map(int, line.split())
        found.setdefault(stamp_ns, []).append(time_ns)
    return found
