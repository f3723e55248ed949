# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The machine and the commit that a benchmark result belongs to."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from magicfuse_ros.backends.cpu import cpu_info
from magicfuse_ros.backends.tensorrt_library import module_name


def cpu_name() -> str:
    """Return the CPU's name as the system reports it; on ARM the board's, as its CPUs have none."""
    return module_name() or cpu_info("model name") or platform.processor() or platform.machine()


def _work_tree(folder: Path) -> list[Path]:
    """Return the root of the git checkout around `folder`, which may have other content, too."""
    return [place for place in (folder, *folder.parents) if (place / ".git").exists()][:1]


def current_commit(folder: Path) -> str:
    """Return the commit of the working tree around `folder`, with "-dirty" if it has changes.

    Return "unknown" if there is no commit or no git, or if the tree is not this project's.
    """
    if not any((place / "package.xml").is_file() for place in _work_tree(folder)):
        return "unknown"
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"
