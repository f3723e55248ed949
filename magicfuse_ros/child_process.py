# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The command of a child process that runs a module of this package."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Like `python -m MODULE`, but without the current folder on the path of modules: a statistics.py
# beside somebody's recordings must not run. Ctrl-C in a terminal reaches the child, too. The parent
# reports it, and a traceback of the child would hide that.
_START = """
import runpy, sys
sys.path[:] = [folder for folder in sys.path if folder]
from magicfuse_ros.child_process import end_with_parent
from magicfuse_ros.interrupt import end_without_traceback
end_without_traceback()
end_with_parent({parent})
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def module_command(module: str) -> list[str]:
    """Return the command that runs a module as a child of this process, and ends with it."""
    return [sys.executable, "-c", _START.format(parent=os.getpid(), module=module)]


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the parent ends, even by SIGKILL; at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
