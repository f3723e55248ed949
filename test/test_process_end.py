# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""How a node's process ends, and what a caller gives it and reads from it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.context import Context

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.playback import children
from magicfuse_ros.playback.children import isolate, last_object, parameter_file
from magicfuse_ros.ros import process
from ros_rig import Domain

# Variables that `isolate` sets, whatever the distribution.
SET = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOG_DIR")

# A node that does the work that argv names; with "hang", its exit holds Python's lock for a minute,
# as Fast DDS has done.
NODE = """
import ctypes, sys
from rclpy.node import Node
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.ros import process

work, end = sys.argv.pop(1), sys.argv.pop(1)
if end == "hang":
    process.END_S = 0.5

class Ending(Node):
    def destroy_node(self):
        if end == "hang":
            ctypes.PyDLL(None).sleep(60)
        if end == "raise":
            raise RuntimeError("a defect in the end")
        super().destroy_node()

def do(node, stop):
    if work == "refuse":
        raise MagicFuseError("the bag is empty")
    if work == "raise":
        raise RuntimeError("a defect")
    if work == "busy":
        print("busy", flush=True)
        process.END_S = 0.5
        ctypes.CDLL(None).sleep(60)  # as a library that compiles networks
    if work == "name":
        node.create_publisher(__import__("std_msgs.msg").msg.String, "/cam-0/image", 1)

sys.exit(process.run(lambda: Ending("ending"), do))
"""


def ended(folder: Path, *arguments: str, logs: bool = True, script: str = NODE) -> tuple[int, str]:
    """Return the exit code of a node and what it printed; without `logs` it has no log folder."""
    domain = Domain()
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain.number),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    if logs:
        environment["ROS_LOG_DIR"] = str(folder)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True, text=True, timeout=50, env=environment,
        )  # fmt: skip
    finally:
        domain.free()
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("work", "end", "code", "printed"),
    [
        ("nothing", "clean", 0, ""),
        ("refuse", "clean", process.REFUSED, "error: the bag is empty"),
        ("name", "clean", process.REFUSED, "'/cam-0/image'"),
        ("raise", "clean", process.DEFECT, "RuntimeError: a defect"),
        ("nothing", "raise", process.DEFECT, "RuntimeError: a defect in the end"),
    ],
)
def test_the_exit_code_says_what_helps(
    tmp_path: Path, work: str, end: str, code: int, printed: str
) -> None:
    found, output = ended(tmp_path, work, end)
    assert (found, printed in output) == (code, True), output
    assert ("Traceback" in output) == (code == process.DEFECT)


# Of two nodes one loses the GPU, and the other waits for it.
CAMERAS = """
import ctypes, sys
from magicfuse_ros.errors import DeviceLostError
from magicfuse_ros.ros import fuse_cameras, process

class Cameras(fuse_cameras.FuseCameras):
    def __init__(self):
        self.nodes = ["loses", "waits"]

    def destroy_node(self):
        pass

def serve(node, end):
    if node == "loses":
        raise DeviceLostError("an image hangs")
    ctypes.CDLL(None).sleep(60)

fuse_cameras.serve, fuse_cameras.END_S = serve, 0.5
sys.exit(process.run(Cameras, Cameras.serve))
"""


def test_a_camera_that_waits_for_a_lost_gpu_does_not_keep_the_process(tmp_path: Path) -> None:
    code, output = ended(tmp_path, script=CAMERAS)
    assert code == process.DEVICE_LOST, output


@pytest.mark.fault(
    "DDS hangs while the node ends", "the process ends within 10 s with the right exit code"
)
@pytest.mark.parametrize(("work", "code"), [("nothing", 0), ("refuse", process.REFUSED)])
def test_an_end_that_hangs_is_cut_short(tmp_path: Path, work: str, code: int) -> None:
    assert process.END_S < 10  # the script shortens it
    began = monotonic()
    found, output = ended(tmp_path, work, "hang")
    assert found == code, output
    assert monotonic() - began < 40


@pytest.mark.fault("SIGINT or SIGTERM while networks are compiled", "ends within 8 s")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_is_busy_in_a_library(tmp_path: Path, number: int) -> None:
    domain = Domain()
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain.number), "ROS_LOG_DIR": str(tmp_path)}
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    command = [sys.executable, "-c", NODE, "busy", "clean"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        assert started.stdout is not None and started.stdout.readline() == "busy\n"
        started.send_signal(number)
        assert started.wait(40) == 0
    domain.free()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-r", "image:=/cam-0/image_raw"], "/cam-0/image_raw"),
        (["-r", "image:=/cam/image_raw/"], "/cam/image_raw/"),
        (["-r", "__ns:=/front-camera"], "/front-camera"),
        (["--params-file", "none.yaml"], "none.yaml"),
        (["--param-file", "none.yaml"], "unknown ROS arguments: ['--param-file', 'none.yaml']"),
        (["--params-file", "{malformed}"], "malformed.yaml"),
    ],
)
def test_what_ros_cannot_read_is_one_line(tmp_path: Path, arguments: list[str], named: str) -> None:
    malformed = tmp_path / "malformed.yaml"
    malformed.write_text("/**:\n  ros__parameters: [1\n")
    given = [argument.format(malformed=malformed) for argument in arguments]
    code, output = ended(tmp_path, "nothing", "clean", "--ros-args", *given)
    assert code == process.REFUSED
    line = output.strip().splitlines()[-1]
    assert line.startswith("error: ") and named in line and "Traceback" not in output
    assert ".c:" not in line  # locations in the ROS source help nobody


def test_a_missing_home_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    code, output = ended(tmp_path, "nothing", "clean", logs=False)
    assert code == 0 and "no log file" in output and "set HOME or ROS_LOG_DIR" in output


@pytest.mark.fault(
    "the log file cannot be opened: a disk that is full, read-only or away",
    "a warning on the terminal names the reason; the node runs without a log file",
)
def test_without_a_log_file_a_node_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", "/proc")  # nobody can create files there
    code, output = ended(tmp_path, "nothing", "clean", logs=False)
    assert code == 0 and "warning: no log file: Failed opening file /proc/" in output


@pytest.mark.parametrize("text", ["2026 straße", "\U0001f697 drive", 'back\\slash "quoted"'])
def test_ros_reads_a_parameter_file_with_any_characters(tmp_path: Path, text: str) -> None:
    file = parameter_file(tmp_path / "given.yaml", {"input": text})
    context = Context()
    rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
    try:
        node = rclpy.create_node("reader", context=context)
        assert node.declare_parameter("input", "").value == text
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)


def test_the_result_of_a_player_is_found_before_what_libraries_print(tmp_path: Path) -> None:
    log = tmp_path / "player.txt"
    log.write_bytes(b'{"sent": 1}\n{"sent": 3}\n\xff Exception ignored in: {}\n{not json\n')
    assert last_object(log) == {"sent": 3}
    log.write_text("Killed\n")
    with pytest.raises(MagicFuseError, match="no result:\nKilled"):
        last_object(log)


@pytest.mark.parametrize(
    ("distribution", "profile"),
    [("humble", "fastdds_localhost.xml"), ("jazzy", "fastdds.xml"), ("", "fastdds.xml")],
)
@pytest.mark.parametrize("there", [True, False])
def test_the_fast_dds_profile_is_used_only_where_its_segments_fit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    distribution: str,
    profile: str,
) -> None:
    variable = children.profile_variable()
    for name in (variable, *SET, "ROS_LOCALHOST_ONLY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.setattr(children, "_SEGMENTS", 1)
    monkeypatch.setattr(children, "_SHARED_MEMORY", tmp_path if there else tmp_path / "none")
    monkeypatch.setenv("ROS_DISCOVERY_SERVER", "127.0.0.1:11811")
    isolate(tmp_path)
    assert os.environ[variable].endswith(profile) == there
    assert "ROS_DISCOVERY_SERVER" not in os.environ, "it would connect to the robot's nodes"


def test_a_path_that_ros_cannot_take_is_named(tmp_path: Path) -> None:
    with pytest.raises(MagicFuseError, match=r"'/bags/f\\udce9.mcap' is not UTF-8"):
        parameter_file(tmp_path / "p.yaml", {"rate": 1.0, "bag": "/bags/f\udce9.mcap"})


def test_the_private_domain_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(caller: str) -> int:
        monkeypatch.setenv("ROS_DOMAIN_ID", caller)
        isolate(tmp_path)
        return int(os.environ["ROS_DOMAIN_ID"])

    for name in (*SET, children.profile_variable()):
        monkeypatch.setenv(name, "")
    first = chosen("0")
    assert 1 <= first <= 100
    assert chosen(str(first)) != first
    assert chosen(f"0{first}") != first


def test_a_domain_is_claimed_before_its_first_node_has_a_port() -> None:
    domain = Domain()
    assert children.claim_domain(domain.number) is None
    domain.free()
    claimed = children.claim_domain(domain.number)
    assert claimed is not None
    claimed.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
        node.bind(("127.0.0.1", 7410 + 250 * domain.number))
        assert children.claim_domain(domain.number) is None
