# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

import subprocess
import sys

import pytest

import fault_table

pytest.importorskip("rclpy", reason="ROS 2 is not installed")


def test_the_table_is_that_of_the_tests() -> None:
    command = [sys.executable, fault_table.__file__, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_test_changes_the_table() -> None:
    collector = fault_table.Collector()
    collector.rows[("camera stops", "WARN")] = ["test_a.py::test_b"]
    page = f"before\n{fault_table.BEGIN}\nold\n{fault_table.END}\nafter\n"
    written = fault_table.with_table(page, collector.table())
    assert "| camera stops | WARN | `test_a.py::test_b` |" in written
    assert "old" not in written
    assert written.startswith("before\n") and written.endswith("\nafter\n")
