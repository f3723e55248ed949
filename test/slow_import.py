# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Interrupts a program while its modules are imported."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path


def with_modules(folder: Path) -> dict[str, str]:
    """Return an environment in which Python finds the modules of a folder first."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def interrupted_import(command: list[str], folder: Path, module: str) -> tuple[int, str]:
    """Interrupt a command while it imports a module, which `folder` then holds.

    Returns:
        Its exit code, and all that it printed after the signal.
    """
    slow = "print('importing', flush=True)\nimport time\ntime.sleep(60)\n"
    (folder / f"{module}.py").write_text(slow)
    with subprocess.Popen(
        command,
        env=with_modules(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=40)
    return process.returncode, output
