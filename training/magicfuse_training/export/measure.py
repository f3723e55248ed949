# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures a call: its time, and how much the memory of this process grows meanwhile (Linux)."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from time import perf_counter

_STATUS, _PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Measure:
    """A context that measures its body.

    Attributes:
        seconds: from start to end.
        gigabytes: peak resident memory minus the resident memory at the start.
    """

    seconds = 0.0
    gigabytes = 0.0

    def __enter__(self) -> Measure:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # the call must not reuse freed memory unnoticed
        _PEAK_RESET.write_text("5")
        self._before = _kilobytes("VmRSS")
        self._started = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = perf_counter() - self._started
        self.gigabytes = (_kilobytes("VmHWM") - self._before) / 1e6


def _kilobytes(key: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
