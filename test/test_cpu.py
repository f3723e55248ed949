# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.


"""The CPU: its name, and how many cores a process may use by affinity and control groups."""

import os
import platform
from pathlib import Path

import pytest

from magicfuse_ros.backends import cpu
from magicfuse_ros.backends.openvino import OpenVinoBackend
from magicfuse_ros.bench.machine import cpu_name

V1 = "3:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n"
QUOTA, PERIOD = "cpu,cpuacct/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_period_us"
V2 = "0::/kubepods/pod/box\n"
MACHINE = platform.processor() or platform.machine()


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cpu, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(cpu, "_GROUPS", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (V2, {"cpu.max": "200000 100000"}, 2),  # inside a container, whose path does not exist
        (V2, {"kubepods/pod/box/cpu.max": "max 100000", "kubepods/cpu.max": "350000 100000"}, 3),
        (V2, {"kubepods/pod/box/cpu.max": "50000 100000"}, 1),
        (V2, {"kubepods/pod/box/cpu.max": "900000 100000"}, 8),
        (V2, {"cpu.max": "max 100000"}, 8),
        (V2, {"cpu.max": "damaged"}, 8),
        (V1, {QUOTA: "400000", PERIOD: "1000"}, 8),
        (V1, {QUOTA: "4000", PERIOD: "1000"}, 4),
        (V1, {QUOTA: "-1", PERIOD: "1000"}, 8),
        (None, {"cpu.max": "200000 100000"}, 8),
    ],
)
def test_a_limit_of_cpu_time_counts_as_cores(
    tmp_path: Path, own: str | None, files: dict[str, str], cores: int
) -> None:
    if own is not None:
        (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cpu.core_count() == cores
    assert cpu.threads_to_set() == (0 if cores == 8 else cores)


@pytest.mark.parametrize(("frames_at_once", "asked", "threads"), [(1, 0, 3), (2, 0, 2), (1, 6, 6)])
def test_openvino_keeps_to_the_limit_unless_told_otherwise(
    tmp_path: Path, frames_at_once: int, asked: int, threads: int
) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "cpu.max").write_text("300000 100000\n")
    backend = OpenVinoBackend(asked, frames_at_once=frames_at_once)
    assert backend._config["INFERENCE_NUM_THREADS"] == threads  # of all frames together


@pytest.mark.parametrize(
    ("text", "name", "instructions"),
    [
        (
            b"model name\t: Caf\xe9 CPU\nflags\t\t: fpu avx2\nvmx flags\t: vnmi\n",
            "Caf\ufffd CPU",
            "fpu avx2",
        ),
        (b"processor\t: 0\nFeatures\t: fp asimd\n", MACHINE, "fp asimd"),
        (None, MACHINE, ""),
    ],
)
def test_a_cpu_is_described_whatever_the_kernel_lists(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: bytes | None,
    name: str,
    instructions: str,
) -> None:
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("magicfuse_ros.bench.machine.module_name", lambda: "")
    if text is not None:
        (tmp_path / "cpuinfo").write_bytes(text)
    assert cpu_name() == name
    assert cpu.instructions.__wrapped__() == instructions
