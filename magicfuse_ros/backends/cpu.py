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


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@cache
def instructions() -> str:
    """Return the names of this CPU's instruction sets, as the kernel lists them; empty if none."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    # x86 has flags, ARM has Features.
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return found.partition(":")[2].strip()


@cache
def computes_int8_faster() -> bool:
    """Return whether int8 convolutions are known to be faster than float32 ones on this CPU.

    On x86-64 with AVX2 a frame of `nano` takes 0.7 times as long, with VNNI 0.6 (see benchmarks/).
    Other CPUs, such as ARM, were not measured.
    """
    return "avx2" in instructions().split()
