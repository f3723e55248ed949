# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What this machine's CPU can do."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def core_count() -> int:
    """Return the number of cores that this process may use.

    A container's CPU time limit counts: four cores for half of the time count as two.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_quotas()]))


def threads_to_set() -> int:
    """Return how many threads a library should use; 0 if that is one for each core that it sees.

    OpenVINO sees which cores a process may run on, but not for how much of the time. With one
    thread for each core, a container with a limit is stopped in the middle of most frames.
    """
    count = core_count()
    return 0 if count == len(os.sched_getaffinity(0)) else count


def _quotas() -> list[int]:
    """Return the CPU time that this process's control groups allow, in whole cores."""
    found = []
    for folder in _groups():
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            found.append(int(quota) // int(period))
        except (OSError, ValueError):  # no such file; "max" is not a number
            continue
    return [cores for cores in found if cores >= 0]


def _groups() -> list[Path]:
    """Return the folders of the control groups of this process, up to their root."""
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = _GROUPS
        elif "cpu" in controllers.split(","):
            root = _GROUPS / controllers
        else:
            continue
        own = root / path.lstrip("/")
        folders += [own, *[above for above in own.parents if above.is_relative_to(root)]]
    return folders


def cpu_info(*names: str) -> str:
    """Return the first value that the kernel lists under one of these names; empty if none."""
    try:
        # A virtual machine's CPU may have any bytes in its name.
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() in names), "")


@cache
def instructions() -> str:
    """Return the names of this CPU's instruction sets, as the kernel lists them; empty if none."""
    return cpu_info("flags", "Features")  # x86 has the first, ARM the second


@cache
def computes_int8_faster() -> bool:
    """Return whether int8 convolutions are known to be faster than float32 ones on this CPU.

    On x86-64 with AVX2 a frame of `nano` takes 0.7 times as long, with VNNI 0.6 (see benchmarks/).
    Other CPUs, such as ARM, were not measured.
    """
    return "avx2" in instructions().split()
