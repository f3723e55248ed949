# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Common code of the `fuse_node` benchmarks: the node, its images, result headers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from time import time_ns
from typing import Any

import numpy as np
import typer
from sensor_msgs.msg import Image

from magicfuse_ros.backends.cpu import core_count
from magicfuse_ros.bench.machine import cpu_name, current_commit
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.playback.children import Process, child, parameter_file

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def fuse_node(name: str, image: str, values: Mapping[str, Any], out: Path) -> Iterator[Process]:
    """Run a `fuse_node` in a process of its own; it activates itself.

    Args:
        name: its full name.
        image: the topic that it subscribes to.
        values: parameters that differ from config/fuse.yaml.
        out: folder for its log and parameter file.
    """
    namespace, _, node = name.rpartition("/")
    log = out / "log" / f"{namespace.strip('/') or node}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    overrides = parameter_file(log.with_suffix(".yaml"), {**values, "autostart": True})
    arguments = ["-r", f"__node:={node}", "-r", f"__ns:={namespace or '/'}"]
    for file in (ROOT / "config" / "fuse.yaml", overrides):
        arguments += ["--params-file", str(file)]
    with child("fuse_node", [*arguments, "-r", f"image:={image}"], log) as process:
        yield process


@contextmanager
def fuse_cameras(
    namespaces: Sequence[str], image: str, values: Mapping[str, Any], out: Path
) -> Iterator[Process]:
    """Run a `fuse_node` in each namespace, all in one process; they activate themselves.

    Args:
        namespaces: full names.
        image: the topic in each namespace.
        values: parameters of all that differ from config/fuse.yaml.
        out: folder for the log and the parameter file.
    """
    log = out / "log" / "cameras.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    given = {**values, "autostart": True, "cameras": list(namespaces)}
    arguments = ["-r", f"image:={image}"]
    for file in (ROOT / "config" / "fuse.yaml", parameter_file(log.with_suffix(".yaml"), given)):
        arguments += ["--params-file", str(file)]
    with child("fuse_cameras", arguments, log) as process:
        yield process


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


def finish(result: Mapping[str, Any], paths: Sequence[Path], log: Path) -> None:
    """Write a soak's result to some files and print it.

    Raises:
        typer.Exit: with code 1 if `result["passed"]` is false.
    """
    text = json.dumps(result, indent=2) + "\n"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(text)
    if not result["passed"]:
        print(f"the soak failed; the logs are in {log}", file=sys.stderr)
        raise typer.Exit(1)
