# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse build --check`: runs the built engines and compares their results with the CPU's."""

from __future__ import annotations

from typing import Any

import typer

from magicfuse_ros import backends
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.bench.facts import aligned, block, facts
from magicfuse_ros.bench.timed_process import resident_mb
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.selftest import LIMITS, Row, check, reference_for


def check_engines(bundle: Bundle, name: str, precision: Precision) -> bool:
    """Compare a backend with the CPU and print a report; return whether it is within the limits.

    Raises:
        MagicFuseError: if the backend cannot run here, an engine cannot be loaded or run, or there
            is no backend to compare it with.
    """
    reference = reference_for(name)
    backend: Any = backends.select(name, precision=precision)
    rows = check(bundle, backend, reference)
    failed = [row.what for row in rows if not row.passed]
    limits = LIMITS[precision]
    lines = [_line(row) for row in rows]
    memory = [f"{resident_mb():.0f} MB of this process"]
    if hasattr(backend, "memory"):
        free, total = backend.memory()
        memory.append(f"{(total - free) >> 20} of {total >> 20} MB on the GPU, of all processes")
    compared = (
        f"{bundle.manifest.name} ({bundle.fingerprint[:12]}) on {backend.name} {backend.version}, "
        f"{precision}, against {reference.name} {reference.version}"
    )
    sections = {
        compared: lines,
        f"limits: {limits.db:.0f} dB, {100 * limits.labels:.1f} % of the labels": [
            "TOO FAR: " + ", ".join(failed) if failed else "all within them"
        ],
        "memory": memory,
        "machine": aligned(facts()),
    }
    typer.echo(block(sections))
    return not failed


def _line(row: Row) -> str:
    labels = "" if row.labels is None else f", {100 * row.labels:.2f} % of the labels"
    return f"{row.what:<12} {row.ms:8.2f} ms  {row.db:6.1f} dB ({row.worst}){labels}"
