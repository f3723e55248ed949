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
