# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Nothing calls home, and nothing stores an identity in the user's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from magicfuse_ros.privacy import VARIABLES

# Lookups and connections by Python itself; C++ libraries are detected by the files that they leave.
WATCHED = """
import sys

def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        print("network:", event, arguments, file=sys.stderr)

sys.addaudithook(watch)
"""


def run(code: str, home: Path, *arguments: str) -> str:
    """Run Python code as a user without settings would, and return all its output."""
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + code, *arguments],
        capture_output=True, text=True, timeout=120, env={**kept, "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_fusing_calls_nobody(tmp_path: Path, tiny_bundle: Path, backend: str) -> None:
    pytest.importorskip(backend)
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.full((64, 96, 3), 90, np.uint8))
    code = "from magicfuse_ros.cli import app; app()"
    options = ["--bundle", str(tiny_bundle), "--backend", backend, "--out", str(tmp_path / "out")]
    printed = run(code, tmp_path / "home", "run", str(picture), *options)
    assert "network:" not in printed
    assert list((tmp_path / "home").rglob("*")) == []


def test_training_switches_reports_off_before_its_libraries_are_loaded(tmp_path: Path) -> None:
    pytest.importorskip("magicfuse_training")
    code = """
import os, magicfuse_training
assert not {"onnxruntime", "openvino", "nncf", "torch"} & sys.modules.keys()
print(sys.modules["openvino_telemetry"], sorted(os.environ.items()))
"""
    printed = run(code, tmp_path / "home")
    assert printed.startswith("None")
    for name, value in VARIABLES.items():
        assert f"('{name}', '{value}')" in printed


def test_the_tests_themselves_report_nothing() -> None:
    assert sys.modules["openvino_telemetry"] is None
    assert all(name in os.environ for name in VARIABLES)


def test_a_choice_of_the_user_wins() -> None:
    code = "import os, magicfuse_ros; print(os.environ['DO_NOT_TRACK'])"
    environment = {**os.environ, "DO_NOT_TRACK": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.strip() == "0"
