"""A bag through the real `fuse_node`, in real time."""

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
from magicfuse_ros.replay.timing import diagnostics, timing

_PUBLISHED = "published.txt"


@dataclass(frozen=True)
class Live:
    """How a bag is played.

    Attributes:
        rate: seconds of the bag in a second.
        loop: how often; 0: until Ctrl-C.
        start_s: seconds of the bag that are left out.
        duration_s: seconds of the bag that are played; None: to its end.
        node: full name of the node.
        node_parameters: what its parameters are, beside those that the bag asks for; None: a node
            is up already.
        domain: ROS domain; None: that of the environment where the node is up already, else one
            of its own on this machine only.
    """

    rate: float
    loop: int
    start_s: float
    duration_s: float | None
    node: str
    node_parameters: Mapping[str, Any] | None
    domain: int | None


def replay_live(source: BagSource, live: Live, out: Path, console: Console) -> dict[str, Any]:
    """Play a bag into the node and record what comes out into `out`/bag.

    Args:
        source: the bag.
        live: how it is played.
        out: an existing folder.
        console: for the progress.

    Returns:
        Counts, fps, ages and the node's last diagnostics, for a JSON report. What was sent was
        fused, refused, failed, or dropped: replaced by a newer image, or lost under way. What the
        bag announces but does not hold is missing.

    Raises:
        MagicFuseError: if ROS is missing, or the node or the player fails.
    """
    log = out / "log"
    log.mkdir(exist_ok=True)
    _choose_domain(live, log)
    try:
        from magicfuse_ros.ros.play_and_record import Play, play_and_record
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
            "wait_s": 60.0 if parameters else 10.0,
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
    node, before = reports[-1], reports[0]
    sent = int(played["sent"])
    counts = {"fused": measured.fused}
    for name in ("refused", "failed"):
        # a node that was up already has its counts from before, too
        counted = 0 if live.node_parameters is not None else int(before.get(name, 0))
        counts[name] = int(node.get(name, 0)) - counted
    frames = {"sent": sent, **counts, "dropped": max(0, sent - sum(counts.values()))}
    if missing := int(played["missing"]):
        frames["missing"] = missing
    return {
        "frames": frames,
        "fps": round(measured.fps, 2),
        "age_ms": {name: round(age, 1) for name, age in measured.age_ms.items()},
        "late_ms": played["late_ms"],
        "damaged": played["damaged"],
        "node": node,
    }


def _choose_domain(live: Live, log: Path) -> None:
    if live.domain is not None:
        os.environ["ROS_DOMAIN_ID"] = str(live.domain)
    elif live.node_parameters is not None:
        from magicfuse_ros.ros.children import isolate

        isolate(log.resolve())


def _published(path: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for line in path.read_text().splitlines():
        stamp_ns, time_ns = map(int, line.split())
        found.setdefault(stamp_ns, []).append(time_ns)
    return found
