# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Common code of the `fuse_node` benchmarks: the node, its cameras, result files."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from time import time_ns
from typing import Any

import numpy as np
import typer
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Float32

from magicfuse_ros.backends.cpu import core_count
from magicfuse_ros.bench.machine import cpu_name, current_commit
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.playback.children import Process, child, isolate, parameter_file
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.session import Session

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0
# Possible outcomes of a received image; all other counters of images must be 0.
OUTCOMES = ("fused", "dropped", "refused", "idle", "failed")
DEEP = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


def output_folder(out: Path) -> Path:
    """Make a folder with one for logs, isolate this process from other ROS nodes, return it."""
    out = out.resolve()
    (out / "log").mkdir(parents=True, exist_ok=True)
    isolate(out)
    return out


def load(bundle: Path | None) -> Bundle:
    """Return a verified bundle; None: the default one."""
    return Bundle.load((bundle or default_bundle()).resolve())


@contextmanager
def errors_in_one_line(out: Path) -> Iterator[None]:
    """Print a MagicFuseError with the place of the logs, and exit with code 2."""
    try:
        yield
    except MagicFuseError as error:
        print(f"error: {error}; see {out}/log", file=sys.stderr)
        raise typer.Exit(2) from error


def fuse_node(
    name: str, image: str, values: Mapping[str, Any], out: Path
) -> AbstractContextManager[Process]:
    """Run a `fuse_node` in a process of its own; it activates itself.

    Args:
        name: its full name.
        image: the topic that it subscribes to.
        values: parameters that differ from config/fuse.yaml.
        out: folder for its log and parameter file.
    """
    namespace, _, node = name.rpartition("/")
    log = out / "log" / f"{namespace.strip('/') or node}.txt"
    rules = (f"__node:={node}", f"__ns:={namespace or '/'}", f"image:={image}")
    return _child("fuse_node", rules, values, log)


def fuse_cameras(
    namespaces: Sequence[str], image: str, values: Mapping[str, Any], out: Path
) -> AbstractContextManager[Process]:
    """Run a `fuse_node` in each namespace, all in one process; they activate themselves.

    Args:
        namespaces: full names.
        image: the topic in each namespace.
        values: parameters of all that differ from config/fuse.yaml.
        out: folder for the log and the parameter file.
    """
    values = {**values, "cameras": list(namespaces)}
    return _child("fuse_cameras", [f"image:={image}"], values, out / "log" / "cameras.txt")


def _child(
    name: str, remapped: Iterable[str], values: Mapping[str, Any], log: Path
) -> AbstractContextManager[Process]:
    log.parent.mkdir(parents=True, exist_ok=True)
    overrides = parameter_file(log.with_suffix(".yaml"), {**values, "autostart": True})
    arguments = [part for rule in remapped for part in ("-r", rule)]
    for file in (ROOT / "config" / "fuse.yaml", overrides):
        arguments += ["--params-file", str(file)]
    return child(name, arguments, log)


def wait_until(
    ready: Callable[[], bool], session: Session, processes: Iterable[Process], complaint: str
) -> None:
    """Wait until the nodes are ready.

    Raises:
        MagicFuseError: with `complaint`, if they are not in time, or a process ends.
    """

    def over() -> bool:
        return any(process.poll() is not None for process in processes)

    if not session.spin_until(lambda: ready() or over(), START_S) or over():
        raise MagicFuseError(complaint)
    session.spin_until(lambda: False, 1.0)  # they may not know of this process yet


def camera_image(height: int, width: int) -> Image:
    """Return noise as a bgr8 message; noise triggers no input check."""
    message = Image(encoding="bgr8", height=height, width=width, step=3 * width)
    pixels = np.random.default_rng(0).integers(0, 256, height * 3 * width, np.uint8)
    message.data.frombytes(pixels)
    return message


def stamp(message: Image) -> int:
    """Stamp a message with the current time and return it, ns."""
    now = time_ns()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
    return now


def stamp_of(message: bytes) -> int:
    """Return the stamp of a serialised image, ns."""
    seconds, nanoseconds = struct.unpack_from("<iI", message, 4)  # CDR: it is the first field
    return int(seconds * 1_000_000_000 + nanoseconds)


def on_report(node: Node, name: str, told: Callable[[dict[str, str]], None]) -> None:
    """Call `told` with the values of every diagnosis of the node `name`."""

    def note(array: DiagnosticArray) -> None:
        (status,) = array.status
        if status.hardware_id == name:
            told({value.key: value.value for value in status.values})

    node.create_subscription(DiagnosticArray, "/diagnostics", note, 50)


class Camera:
    """Sends images, 640x480 bgr8, to the node of a namespace, and keeps what it says of them.

    Attributes:
        name: full name of the node.
        sent_in_all: how many it has sent since the node became active.
        ages_ms: age of every fused image when it was published, in ms.
        report: the node's latest diagnostics.
    """

    def __init__(self, session: Session, namespace: str, depth: int) -> None:
        """Keep up to `depth` ages while the session does not spin."""
        self.name = f"{namespace}/fuse_node"
        self.sent_in_all = 0
        self.ages_ms: list[float] = []
        self.report: Mapping[str, str] = {}
        self._message = camera_image(480, 640)
        node = session.node
        self._publisher = node.create_publisher(Image, f"{namespace}/image_raw", qos.images())
        profile = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        ages = f"{self.name}/debug/age_ms"
        node.create_subscription(Float32, ages, lambda age: self.ages_ms.append(age.data), profile)
        on_report(node, self.name, self._told)

    def _told(self, report: Mapping[str, str]) -> None:
        self.report = report

    def connected(self) -> bool:
        """Return whether the node listens, so it is active."""
        return bool(self._publisher.get_subscription_count() > 0)

    def send(self) -> int:
        """Send an image of this moment and return its stamp, ns."""
        now = stamp(self._message)
        self._publisher.publish(self._message)
        self.sent_in_all += 1
        return now

    def count(self, name: str) -> int:
        """Return one of the node's counters."""
        return int(self.report.get(name, 0))

    def settled(self) -> bool:
        """Return whether the node has told the outcome of every image that was sent."""
        return self.sent_in_all == sum(self.count(name) for name in ("lost", *OUTCOMES))


def head(bundle: Bundle) -> dict[str, Any]:
    """Return the context of a result: machine, commit, date, bundle."""
    return {
        "machine": {"cpu": cpu_name(), "cores": core_count()},
        "commit": current_commit(ROOT),
        "created": datetime.now(timezone.utc).date().isoformat(),
        "bundle": bundle.manifest.name,
        "bundle_sha256": bundle.fingerprint,
    }


def quantiles(ms: np.ndarray) -> dict[str, float]:
    """Return median and p95, rounded to 0.01."""
    median, p95 = np.percentile(ms, (50, 95))
    return {"median": round(float(median), 2), "p95": round(float(p95), 2)}


def write(result: Mapping[str, Any], *paths: Path | None) -> str:
    """Write a result to some files (None: not to that one), and return the text."""
    text = json.dumps(result, indent=2) + "\n"
    for path in filter(None, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return text


def finish(found: Mapping[str, Any], code: int, log: Path, *paths: Path | None) -> None:
    """Print a soak's result with the exit code of the node's process, and write it to some files.

    Raises:
        typer.Exit: with code 1 if it did not pass, or `code` is not 0.
    """
    result = {**found, "exit_code": code, "passed": found["passed"] and code == 0}
    print(write(result, *paths))
    if not result["passed"]:
        print(f"the soak failed; the logs are in {log}", file=sys.stderr)
        raise typer.Exit(1)
