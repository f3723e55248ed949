# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Runs a player and `fuse_node` and records in this process, for the demo and the replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGTERM
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float32

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.interrupt import Interrupt
from magicfuse_ros.playback.children import Process, child, end, last_object, parameter_file, tail
from magicfuse_ros.ros.debug_topics import NAMES
from magicfuse_ros.ros.labels import LABEL_TYPE
from magicfuse_ros.ros.recorder import TopicRecorder
from magicfuse_ros.ros.session import Session
from magicfuse_ros.topics import CAMERA_INFO, DIAGNOSTICS, IMAGE_TOPICS, LABELS, MAG_IMAGE

BRING_UP_S = 600.0  # a large bundle on a slow machine; a node that ends is noticed at once
QUIET_S = 2.0  # after the player's end: no result for this long means that all have arrived
QUIET_GAPS = 2  # ... or for this many times the longest gap between results


@dataclass(frozen=True)
class Play:
    """The participants.

    Attributes:
        player: module of `magicfuse_ros.ros` that plays, and prints a JSON object at its end.
        player_parameters: ROS parameters of the player.
        player_arguments: further ROS arguments of the player, for remappings.
        node: full name of the `fuse_node`.
        node_parameters: ROS parameters of the node; None if it is already running.
        image: the raw image topic for the node.
        parameter_files: parameter files of the node; its parameters override them.
        record: further topics, besides the node's outputs, with their message classes.
    """

    player: str
    player_parameters: Mapping[str, Any]
    node: str
    node_parameters: Mapping[str, Any] | None
    image: str
    player_arguments: tuple[str, ...] = ()
    parameter_files: tuple[Path, ...] = ()
    record: Mapping[str, Any] | None = None


def topics(node: str) -> dict[str, Any]:
    """Return the output topics of a `fuse_node` and /diagnostics, with their message classes."""
    return {
        **{f"{node}/{topic.name}": Image for topic in IMAGE_TOPICS},
        f"{node}/{CAMERA_INFO}": CameraInfo,
        f"{node}/{LABELS}": LABEL_TYPE,
        **{f"{node}/debug/{name}": Float32 for name in NAMES},
        DIAGNOSTICS: DiagnosticArray,
    }


def play_and_record(play: Play, frames: int, out: Path, console: Console) -> dict[str, Any]:
    """Play into `fuse_node` and record its outputs into `out`/bag.

    Ctrl-C and SIGTERM end the play; the results up to then are kept. Both are held back while
    rclpy works: an exception inside it can be lost, because Python ignores those of destructors.

    Args:
        play: the participants.
        frames: largest possible number of fused images, for the progress bar; 0: unknown.
        out: a folder with an empty folder log.
        console: for the progress.

    Returns:
        The JSON object that the player printed at its end, and "interrupted": whether a signal
        ended the play.

    Raises:
        MagicFuseError: if the node or the player fails; the message contains the end of its log.
        KeyboardInterrupt: at a signal before the play, or at a second one.
    """
    log = out / "log"
    mag_image = f"{play.node}/{MAG_IMAGE}"
    latched = {f"{play.node}/{LABELS}"}
    with Interrupt(sigterm=True) as interrupt, ExitStack() as stack:
        node = _start_node(play, log, stack)
        session = stack.enter_context(Session("recorder"))
        recorded = {**(play.record or {}), **topics(play.node)}
        recorder = TopicRecorder(session.node, out / "bag", recorded, latched)
        stack.callback(recorder.close)
        if node is not None:
            console.print("starting fuse_node ...")
            hopeful = partial(_hopeful, node, interrupt)
            if not session.bring_up(play.node, hopeful, BRING_UP_S):
                if interrupt.asked:
                    raise KeyboardInterrupt
                raise MagicFuseError(f"fuse_node did not become active:\n{_node_log(log)}")

        name = play.player.rpartition(".")[2]
        player_log = log / f"{name}.txt"
        parameters = parameter_file(log / f"{name}.yaml", play.player_parameters)
        arguments = ["--params-file", str(parameters), *play.player_arguments]
        player = stack.enter_context(child(play.player, arguments, player_log))
        with _bar(console, frames) as show:
            gap, since, count = 0.0, monotonic(), 0
            while player.poll() is None and _alive(node) and not interrupt.asked:
                session.spin_until(lambda: False, 0.2)
                recorder.match()
                show(recorder.counts[mag_image])
                if count:  # from the first result on
                    gap = max(gap, monotonic() - since)
                if recorder.counts[mag_image] > count:
                    count, since = recorder.counts[mag_image], monotonic()
            if interrupt.asked:
                console.print("stopping ...")
                end(player)
            if _alive(node) and player.returncode == 0:
                before, quiet = interrupt.asked, max(QUIET_S, QUIET_GAPS * gap)
                enough = partial(_newly, interrupt, before)
                _wait_for_quiet(session, lambda: recorder.counts[mag_image], quiet, enough)
                show(recorder.counts[mag_image])
        if not _alive(node):
            raise MagicFuseError(f"fuse_node ended while it was in use:\n{_node_log(log)}")
        if player.returncode != 0:
            if interrupt.asked and player.returncode == -SIGTERM:  # before it noted signals
                raise KeyboardInterrupt
            raise MagicFuseError(f"{name} failed:\n{tail(player_log)}")
        if node is not None and (code := end(node)) != 0:
            raise MagicFuseError(f"fuse_node ended with code {code}:\n{_node_log(log)}")
    if interrupt.asked and '"sent"' not in player_log.read_text(errors="replace"):
        raise KeyboardInterrupt  # it was still opening its input
    return {**last_object(player_log), "interrupted": interrupt.asked}


def _start_node(play: Play, log: Path, stack: ExitStack) -> Process | None:
    if play.node_parameters is None:
        return None
    # The same arguments that launch makes from fuse.launch.py.
    namespace, _, name = play.node.rpartition("/")
    overrides = parameter_file(log / "fuse_node.yaml", play.node_parameters)
    arguments = ["-r", f"__node:={name}", "-r", f"__ns:={namespace or '/'}"]
    for file in (*play.parameter_files, overrides):
        arguments += ["--params-file", str(file)]
    arguments += ["-r", f"image:={play.image}"]
    return stack.enter_context(child("fuse_node", arguments, log / "fuse_node.txt"))


def _alive(node: Process | None) -> bool:
    return node is None or node.poll() is None


def _newly(interrupt: Interrupt, before: bool) -> bool:
    return interrupt.asked and not before


def _hopeful(node: Process | None, interrupt: Interrupt) -> bool:
    return _alive(node) and not interrupt.asked


def _node_log(log: Path) -> str:
    return tail(log / "fuse_node.txt")


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yield a function that takes the progress."""
    columns = (TextColumn("fused"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total or None)
        yield lambda done: progress.update(task, completed=done)


def _wait_for_quiet(
    session: Session, count: Callable[[], int], quiet_s: float, enough: Callable[[], bool]
) -> None:
    """Spin the session until `count` has not changed for `quiet_s`, or until `enough()`.

    Another camera may feed the node for ever, so it waits ten times as long at most.
    """
    end = monotonic() + 10 * quiet_s
    grown = True
    while grown and not enough() and monotonic() < end:
        grown = session.spin_until(partial(_above, count, count(), enough), quiet_s)


def _above(count: Callable[[], int], limit: int, enough: Callable[[], bool]) -> bool:
    return enough() or count() > limit
