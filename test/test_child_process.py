# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Child processes: they end with their parent, and run nothing of the current folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from magicfuse_ros.child_process import module_command
from slow_import import interrupted_import, with_modules

PARENT = """
import subprocess, sys
from magicfuse_ros.child_process import module_command
child = subprocess.Popen(module_command("sleeper"), start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_a_child_ends_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs([child], timeout=20)[1], "it lives on"


def test_a_module_of_the_current_folder_does_not_run(tmp_path: Path) -> None:
    modules, here = tmp_path / "modules", tmp_path / "here"
    modules.mkdir()
    here.mkdir()
    (modules / "user.py").write_text("import statistics\nprint(statistics.mean([1, 3]))\n")
    (here / "statistics.py").write_text("raise SystemExit('this ran')\n")
    done = subprocess.run(
        module_command("user"),
        cwd=here,
        env=with_modules(modules),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_ctrl_c_of_a_terminal_ends_a_child_without_a_traceback(tmp_path: Path) -> None:
    ended = interrupted_import(module_command("slow"), tmp_path, "slow")
    assert ended == (-signal.SIGINT, "")
