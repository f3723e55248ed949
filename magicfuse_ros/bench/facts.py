# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The facts for a bug report: machine, GPU, system, libraries, ROS; nothing about the owner."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from pathlib import Path

import cv2
import numpy as np

from magicfuse_ros import __version__
from magicfuse_ros.backends.cpu import core_count
from magicfuse_ros.bench.gpu import find_gpu
from magicfuse_ros.bench.machine import cpu_name, current_commit

# Each module with the names of its distributions.
_LIBRARIES = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnx": ("onnx",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    "pydantic": ("pydantic",),
    "av": ("av",),
    "rosbags": ("rosbags",),
}


def facts() -> dict[str, str]:
    """Return the name and value of each fact, in the best order for reading."""
    gpu, reason = find_gpu()
    found = {
        "magicfuse_ros": f"{__version__}, commit {current_commit(Path(__file__).parent)}",
        "CPU": f"{cpu_name()}, {core_count()} cores, {platform.machine()}",
        "memory": _memory(),
        "GPU": reason,
    }
    if gpu is not None:
        found["GPU"] = (
            f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_mb} MB"
        )
        found["driver"] = f"{gpu.driver}, serves CUDA {gpu.driver_cuda}"
        found["CUDA runtime"] = gpu.runtime
        found["power mode"] = gpu.power_mode
        if gpu.module:
            found["module"] = f"{gpu.module}, {gpu.jetpack}".rstrip(", ")
    return {
        **found,
        "system": f"{_system()}, Linux {platform.release()}",
        "Python": f"{platform.python_version()}, {'venv' if _in_venv() else 'of the system'}",
        "numpy": np.__version__,
        "OpenCV": cv2.__version__,
        **{module: _version(module, names) for module, names in _LIBRARIES.items()},
        "ROS": _ros(),
    }


def block(sections: dict[str, list[str]]) -> str:
    """Return Markdown to paste into an issue: a fenced block of titled lines."""
    lines = ["```text"]
    for title, content in sections.items():
        lines += [title, *(f"  {line}" for line in content)]
    return "\n".join([*lines, "```"])


def aligned(pairs: dict[str, str]) -> list[str]:
    """Return lines of names and values in two columns."""
    width = max(map(len, pairs))
    return [f"{name:<{width}}  {value}" for name, value in pairs.items()]


def _version(module: str, distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    # apt installs some without metadata; importing a module to ask it could kill the process.
    return "installed, of unknown version" if importlib.util.find_spec(module) else "not installed"


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 2**30:.1f} GiB"


def _system() -> str:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown system"
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return match[1] if match else "unknown system"


def _in_venv() -> bool:
    return sys.prefix != sys.base_prefix


def _ros() -> str:
    distro = os.environ.get("ROS_DISTRO", "")
    if importlib.util.find_spec("rclpy") is None:
        return f"{distro}, but rclpy cannot be imported" if distro else "none in this shell"
    try:
        from magicfuse_ros.ros.rmw import rmw_name  # only this folder imports rclpy

        rmw = rmw_name()
    except Exception as error:  # a broken installation may raise anything
        rmw = f"no rmw ({error})"
    return f"{distro or 'installed as wheels'}, {rmw}"
