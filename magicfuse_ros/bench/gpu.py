# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The GPU of this machine, as benchmark results and bug reports name it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from magicfuse_ros.backends import cudart
from magicfuse_ros.backends.cuda import Device
from magicfuse_ros.backends.tensorrt_library import module_name
from magicfuse_ros.errors import BackendError

_DRIVER = Path("/proc/driver/nvidia/version")  # on PCs, and on Jetsons since JetPack 6
_L4T = Path("/etc/nv_tegra_release")
_TIMEOUT_S = 5.0
UNKNOWN = "unknown"


class Gpu(BaseModel):
    """A GPU and everything that its speed and results depend on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    compute_capability: str
    memory_mb: int  # in 2^20 bytes; a Jetson shares it with the CPU
    module: str  # on a Jetson, such as "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"
    jetpack: str  # release of its Linux for Tegra; empty on other machines
    driver: str  # release, such as "580.65"
    driver_cuda: str  # latest CUDA that the driver supports
    runtime: str  # release and path of libcudart
    power_mode: str  # nvpmodel on a Jetson, else the card's power limit


def find_gpu() -> tuple[Gpu | None, str]:
    """Return the GPU that networks would run on, or None and the reason."""
    runtime, reason = cudart.load()
    if runtime is None:
        return None, reason
    try:
        device = Device()
        _, total = device.memory()
    except BackendError as error:
        return None, str(error)
    return (
        Gpu(
            name=device.name,
            compute_capability=device.compute_capability,
            memory_mb=total >> 20,
            module=module_name(),
            jetpack=_jetpack(),
            driver=_driver(),
            driver_cuda=runtime.driver_version(),
            runtime=f"{runtime.version()} ({runtime.path})",
            power_mode=power_mode(),
        ),
        "",
    )


def power_mode() -> str:
    """Return the limit on the GPU's clocks, as reported by its own tool."""
    if (text := _output("nvpmodel", "-q")) is not None:  # "NV Power Mode: MAXN", and its number
        match = re.search(r"Power Mode: *(\S+)", text)
        return match[1] if match else UNKNOWN
    query = "--query-gpu=power.limit,clocks.max.sm"
    text = _output("nvidia-smi", "--id=0", query, "--format=csv,noheader")
    return " ".join(text.split()) if text else UNKNOWN


def _driver() -> str:
    match = re.search(r"\b(\d{3}\.\d+(\.\d+)?)\b", _text(_DRIVER))
    return match[1] if match else UNKNOWN


def _jetpack() -> str:
    match = re.search(r"R(\d+).*REVISION: *([\d.]+)", _text(_L4T))
    return f"L4T {match[1]}.{match[2]}" if match else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output(*command: str) -> str | None:
    """Return what a program prints; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
