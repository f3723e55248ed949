# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Cameras in one process, over DDS, on networks that take 20 ms longer than they would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from magicfuse_ros.ros.worker import RELOAD_AFTER
from ros_rig import RELIABLE, Rig, image

FRONT, REAR, LEFT = "/front/fuse_node", "/rear/fuse_node", "/left/fuse_node"
# fuse_cameras that writes a letter for each time that the networks are loaded, and how many images
# were in them whenever one more came in.
SCRIPT = """
import os, threading, time
from magicfuse_ros import shared_networks
from magicfuse_ros.ros import fuse_cameras

class Slow(shared_networks.Sampler):
    def __init__(self, *arguments):
        with open(os.environ["LOADS"], "a") as file:
            file.write("x")
        super().__init__(*arguments)

    inside, lock = 0, threading.Lock()

    def sample(self, image, outputs, steps, tau):
        with Slow.lock, open(os.environ["INSIDE"], "a") as file:
            Slow.inside += 1
            file.write(str(Slow.inside))
        try:
            time.sleep(0.02)
            if tau == 0.99:
                raise RuntimeError("a defect of one camera's frames")
            return super().sample(image, outputs, steps, tau)
        finally:
            with Slow.lock:
                Slow.inside -= 1

shared_networks.Sampler = Slow
fuse_cameras.main()
"""


class Cameras(Rig):
    """The nodes, and a camera of each. Whatever asks a node asks the one of `name`."""

    # By their full names, as the process has them all.
    remappings = (
        "/front/image:=/camera/image_raw",
        "/rear/image:=image_raw",
        "/left/image:=image_raw",
    )

    def __init__(self, folder: Path, bundle: Path) -> None:
        script = folder / "cameras.py"
        script.write_text(SCRIPT)
        self.loads, self.inside = folder / "loads", folder / "inside"
        self.reports: dict[str, dict[str, str]] = {}
        cameras = ["/front", "/rear", "/left"]
        environment = {
            "LOADS": str(self.loads),
            "INSIDE": str(self.inside),
            "OMP_NUM_THREADS": "1",
        }
        command = (sys.executable, str(script))
        super().__init__(folder, environment, command, bundle=str(bundle), cameras=cameras)
        self.rear_camera = self.node.create_publisher(Image, "/rear/image_raw", RELIABLE)
        self.left_camera = self.node.create_publisher(Image, "/left/image_raw", RELIABLE)
        self._of_node = {self.name: self._clients}

    def at(self, name: str) -> Cameras:
        self.name = name
        self._clients: dict[str, Any] = self._of_node.setdefault(name, {})
        return self

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        (status,) = array.status
        if status.hardware_id == self.name:
            super()._on_diagnostics(array)

    def drive(self, seconds: float, rear: Image | None = None, times: int = 20) -> None:
        """Send 10 images a second to the front, and `times` as many of `rear` to the others."""
        period = 0.1 / times
        start = monotonic()
        for number in range(round(seconds / period)):
            if number % times == 0:
                self.camera.publish(self.stamped(image()))
            if rear is not None:
                self.rear_camera.publish(self.stamped(rear))
                if self.left_camera.get_subscription_count():
                    self.left_camera.publish(rear)
            self.wait(start + (number + 1) * period - monotonic())

    def stamped(self, message: Image) -> Image:
        message.header.stamp = self.node.get_clock().now().to_msg()
        return message


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Cameras]:
    made = Cameras(tmp_path_factory.mktemp("cameras"), tiny_bundle)
    try:
        made.at(FRONT).activate_for(made.camera)
        made.at(REAR).activate_for(made.rear_camera)
        yield made
        assert made.end() == 0, made.output()
    finally:
        made.close()


@pytest.fixture
def cameras(shared: Cameras) -> Iterator[Cameras]:
    yield shared
    for name in (FRONT, REAR):
        shared.at(name).unsubscribe_all()


def test_both_are_fused_with_one_copy_of_the_networks(cameras: Cameras) -> None:
    front = cameras.at(FRONT).subscribe("mag_image")
    rear = cameras.at(REAR).subscribe("segmentation/mask")
    cameras.camera.publish(image(stamp=1))
    cameras.rear_camera.publish(image(stamp=2, size=(48, 64)))
    assert cameras.spin_until(lambda: bool(front and rear)), cameras.output()
    assert (front[0].header.stamp.sec, front[0].width) == (1, 96)
    assert (rear[0].header.stamp.sec, rear[0].width) == (2, 64)
    assert cameras.loads.read_text() == "x"
    assert cameras.at(FRONT).next_diagnostics()["networks_shared_with"] == REAR


def test_one_restarts_while_the_other_goes_on(cameras: Cameras) -> None:
    cameras.at(FRONT).subscribe("mag_image")
    before = cameras.counts()
    rear = cameras.at(REAR)
    for label in ("deactivate", "cleanup"):
        assert rear.transition(label), rear.output()
        cameras.drive(0.2)
    assert rear.set(fit="stretch").successful and rear.set(threads=1).successful
    assert rear.transition("configure")
    assert rear.set(tau=1.0).successful
    cameras.drive(0.2)
    assert rear.transition("activate")
    assert cameras.spin_until(lambda: cameras.rear_camera.get_subscription_count() > 0)
    rear.sync()
    assert rear.next_diagnostics()["tau"] == "1.00"
    assert rear.next_diagnostics()["networks_shared_with"] == ""  # with threads of its own
    assert cameras.loads.read_text() == "xx"
    images = rear.subscribe("mag_image")
    rear.rear_camera.publish(rear.stamped(image()))
    assert cameras.spin_until(lambda: bool(images)), cameras.output()
    new = cameras.at(FRONT).new_counts(before)
    assert new["received"] == new["fused"] == 6, cameras.output()
    assert cameras.next_diagnostics()["tau"] == "0.40"


def test_two_floods_get_what_the_other_leaves(cameras: Cameras) -> None:
    cameras.at(LEFT).activate_for(cameras.left_camera)
    before = {}
    for name in (FRONT, REAR, LEFT):
        cameras.at(name).subscribe("mag_image")
        before[name] = cameras.counts()
    cameras.drive(2.0, rear=image())
    new = {name: cameras.at(name).new_counts(before[name]) for name in (LEFT, REAR, FRONT)}
    why = cameras.next_diagnostics()["plan_why"]
    for label in ("deactivate", "cleanup"):
        assert cameras.at(LEFT).transition(label), cameras.output()
    front = new[FRONT]
    # All of its images, or as many as a flood gets where the machine is too busy for all.
    assert front["received"] == 20 and front["fused"] >= min(18, 0.8 * new[REAR]["fused"]), new
    for flood in (new[REAR], new[LEFT]):
        assert 0 < flood["fused"] < 0.5 * flood["received"], new
    assert why.endswith("% of the time, beside 2 other cameras"), why
    most = max(map(int, cameras.inside.read_text()))
    assert most == min(2, len(os.sched_getaffinity(0))), "images in the networks at the same time"


def test_garbage_harms_only_its_own_camera(cameras: Cameras) -> None:
    garbage = image()
    garbage.encoding = "garbage"
    before_rear = cameras.at(REAR).counts()
    cameras.at(FRONT).subscribe("mag_image")
    before = cameras.counts()
    cameras.drive(1.0, rear=garbage, times=10)
    front, rear = cameras.new_counts(before), cameras.at(REAR).new_counts(before_rear)
    assert front["received"] == front["fused"] + front["dropped"] == 10, (front, rear)
    assert front["fused"] >= 5, (front, rear)
    assert rear["refused"] > 0 and rear["failed"] == rear["fused"] == 0, rear
    assert cameras.state() == "active"


def test_networks_that_fail_for_one_work_for_the_other(cameras: Cameras) -> None:
    rear = cameras.at(REAR)
    rear.subscribe("mag_image")
    before_rear, loads = rear.counts(), len(rear.loads.read_text())
    assert rear.set(tau=0.99).successful
    cameras.at(FRONT).subscribe("mag_image")
    before = cameras.counts()
    cameras.drive(1.5, rear=image(), times=1)
    front, rear_counts = cameras.new_counts(before), cameras.at(REAR).new_counts(before_rear)
    assert front["received"] == front["fused"] + front["dropped"] == 15, front
    assert front["fused"] >= 8, front
    assert rear_counts["failed"] >= RELOAD_AFTER and rear_counts["fused"] == 0, rear_counts
    assert len(cameras.loads.read_text()) == loads + 1
    report = cameras.next_diagnostics()
    assert report["level"] == "2" and "a defect of one camera's frames" in report["message"], report
    assert cameras.set(tau=0.4).successful
    images = cameras.subscribe("segmentation/mask")
    cameras.rear_camera.publish(cameras.stamped(image()))
    assert cameras.spin_until(lambda: bool(images)), cameras.output()
    assert cameras.next_diagnostics()["level"] != "2"


def test_a_signal_ends_the_process_while_networks_are_loaded(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    code = """
import time
from magicfuse_ros import shared_networks
from magicfuse_ros.ros import fuse_cameras

def load(*arguments):
    print("loading", flush=True)
    time.sleep(300)

shared_networks.Sampler = load
fuse_cameras.END_S = 0.5
fuse_cameras.main()
"""
    command = [sys.executable, "-c", code, "--ros-args", "-p", "cameras:=[front, rear]"]
    command += ["-p", "autostart:=true", "-p", f"bundle:={tiny_bundle}"]
    environment = {
        **os.environ,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(tmp_path),
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "loading\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "cameras is ['']; expected different namespaces"),
        (["-p", "cameras:=[front, front]"], "cameras is ['front', 'front']"),
        (["-p", "cameras:=[front, 7th]"], "error: camera /7th: "),
        (["-p", "cameras:=[front, rear]", "-p", "steps:=-1"], "error: camera /front: "),
    ],
)
def test_a_wrong_parameter_refuses_the_start(arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "magicfuse_ros.ros.fuse_cameras", "--ros-args", *arguments]
    environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1, done.stderr
    assert expected in done.stderr
