# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Faults of the node's own process, its networks and its disk, over DDS."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from ros_rig import COUNTERS, Rig, image

# fuse_node with networks that raise while the file FAULT exists: with "once" the first failure
# removes it, with "until loaded" reloading them does. Each failure extends the file RAISED.
FAULTY_NODE = """
import os
from pathlib import Path
from magicfuse_ros.backends.openvino import OpenVinoBackend
from magicfuse_ros.ros import fuse_node

fault = Path(os.environ["FAULT"])
load = OpenVinoBackend.load

def load_faulty(self, path, spec):
    fault.unlink(missing_ok=True)
    network = load(self, path, spec)

    def call(inputs):
        if fault.exists():
            if fault.read_text() == "once":
                fault.unlink()
            with open(os.environ["RAISED"], "a") as raised:
                raised.write("x")
            raise RuntimeError("the device is lost")
        return network(inputs)

    return call

OpenVinoBackend.load = load_faulty
fuse_node.main()
"""
# Like launch with respawn=true.
RESPAWN = "import subprocess, sys\nwhile True: subprocess.call(sys.argv[1:])"
NODE = (sys.executable, "-m", "magicfuse_ros.ros.fuse_node")


@pytest.mark.fault("the backend raises once", "that image is counted as failed; the next is fused")
@pytest.mark.fault(
    "the backend raises for every image",
    "after 5 in a row: ERROR, and the networks are reloaded; again after 10 s, 20 s, up to 320 s",
)
def test_a_raising_backend(tmp_path: Path, tiny_bundle: Path) -> None:
    script, fault, raised = (tmp_path / name for name in ("node.py", "fault", "raised"))
    script.write_text(FAULTY_NODE)
    raised.touch()
    command = (sys.executable, str(script))
    environment = {"FAULT": str(fault), "RAISED": str(raised)}
    rig = Rig(tmp_path, environment, command, bundle=str(tiny_bundle))

    def lose(stamp: int, total: int) -> None:
        rig.camera.publish(image(stamp))
        assert rig.spin_until(lambda: raised.stat().st_size == total), rig.output()

    try:
        rig.activate()
        received = rig.subscribe("mag_image")
        fault.write_text("once")
        lose(1, total=1)
        rig.camera.publish(image(stamp=2))
        assert rig.spin_until(lambda: bool(received)), rig.output()
        assert "image lost: RuntimeError: the device is lost" in rig.output()
        assert rig.counts() == dict.fromkeys(COUNTERS, 0) | {"received": 2, "fused": 1, "failed": 1}

        fault.write_text("until loaded")
        for number in range(5):
            lose(10 + number, total=2 + number)
        assert rig.spin_until(lambda: rig.diagnostics[-1]["reloads"] == "1"), rig.output()
        assert rig.diagnostics[-1]["failed"] == "6"
        assert rig.diagnostics[-1]["level"] == "2"
        assert "5 images in a row were lost" in rig.diagnostics[-1]["message"]
        rig.camera.publish(image(stamp=20))
        assert rig.spin_until(lambda: len(received) == 2), rig.output()
        assert rig.spin_until(lambda: rig.diagnostics[-1]["level"] != "2"), rig.diagnostics[-1]
        assert [message.header.stamp.sec for message in received] == [2, 20]
        assert rig.end() == 0, rig.output()
    finally:
        rig.close()


@pytest.mark.fault(
    "kill -9", "when it is started again, as the launch files do, it becomes active by itself"
)
def test_kill_and_respawn(tmp_path: Path, tiny_bundle: Path) -> None:
    command = (sys.executable, "-c", RESPAWN, *NODE)
    rig = Rig(tmp_path, command=command, bundle=str(tiny_bundle), autostart=True)
    launch = psutil.Process(rig.process.pid)

    def fuses_again(seen: int) -> bool:
        rig.camera.publish(image())
        rig.wait(0.1)
        return len(received) > seen

    try:
        received = rig.subscribe("mag_image")
        assert rig.spin_until(partial(fuses_again, 0)), rig.output()
        (first,) = launch.children()
        first.kill()
        assert rig.spin_until(lambda: first.pid not in [c.pid for c in launch.children()])
        seen = len(received)
        assert rig.spin_until(partial(fuses_again, seen)), rig.output()
        (second,) = launch.children()
        assert second.pid != first.pid
    finally:
        children = launch.children() if launch.is_running() else []
        rig.close()
        for child in children:
            child.kill()


@pytest.mark.fault(
    "the disk with the engine cache and the log is full",
    "`magicfuse build` says so and leaves no partial file; the node runs without both",
)
def test_full_disk(tmp_path: Path, tiny_bundle: Path) -> None:
    cache = tmp_path / "cache"
    build = [sys.executable, "-c", "from magicfuse_ros.cli import app; app()", "build"]
    build += ["--backend", "openvino"]
    limited = ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *build, str(tiny_bundle)]
    environment = {**os.environ, "MAGICFUSE_CACHE": str(cache)}
    done = subprocess.run(limited, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, done.stdout + done.stderr
    assert "File too large" in " ".join((done.stdout + done.stderr).split())
    assert not [path for path in cache.rglob("*") if path.suffix in (".engine", ".json")]

    full = ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh", *NODE)
    with Rig(tmp_path, {"MAGICFUSE_CACHE": str(cache)}, full, bundle=str(tiny_bundle)) as rig:
        rig.activate()
        received = rig.subscribe("mag_image")
        bad = image()
        bad.encoding = "32FC1"  # this makes it log
        rig.camera.publish(bad)
        rig.camera.publish(image())
        assert rig.spin_until(lambda: bool(received))
