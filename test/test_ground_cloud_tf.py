# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Where the ground node takes the camera's pose from TF, and how long it waits for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import LaserScan, PointCloud2

from test_ground_cloud_node import (
    CX,
    CY,
    F,
    GroundRig,
    calibration,
    first_on_path,
    points,
    scene,
)

# tf2_ros is not a wheel: this stand-in replaces it if it is not installed, and reads a file.
TF2_ROS = """
import json, pathlib
from types import SimpleNamespace

class TransformException(Exception):
    pass

class TransformListener:
    def __init__(self, buffer, node):
        pass
    def unregister(self):
        pass

class Buffer:
    def clear(self):
        pathlib.Path(__file__).with_name("cleared").touch()
    def lookup_transform(self, target, source, time):
        try:
            text = pathlib.Path(__file__).with_name("transform.json").read_text()
        except OSError:
            raise TransformException(f"{source} does not exist at {time.nanoseconds}") from None
        t, q = json.loads(text)[f"{target} from {source}"]
        return SimpleNamespace(transform=SimpleNamespace(
            translation=SimpleNamespace(**dict(zip("xyz", t))),
            rotation=SimpleNamespace(**dict(zip("xyzw", q))),
        ))
"""


class TfRig(GroundRig):
    """A node with the stand-in for TF."""

    def __init__(self, folder: Path, **parameters: Any) -> None:
        self._folder = folder
        (folder / "tf2_ros.py").write_text(TF2_ROS)
        fixed = {"base_frame": "base", "scan_increment": 0.03}
        super().__init__(folder, first_on_path(folder), **fixed, **parameters)

    def place(
        self, *translation: float, quaternion: Sequence[float] = (-0.5, 0.5, -0.5, 0.5)
    ) -> None:
        """Make the camera's pose known; the file is replaced atomically."""
        known = {"base from front_camera": (translation, quaternion)}
        (self._folder / "transform.new").write_text(json.dumps(known))
        (self._folder / "transform.new").replace(self._folder / "transform.json")


def test_the_pose_comes_from_tf(tmp_path: Path) -> None:
    rig = TfRig(tmp_path)
    place = rig.place
    try:
        rig.activate_with_classes()
        clouds, scans = rig.subscribe("points", PointCloud2), rig.subscribe("scan", LaserScan)
        rig.send(scene(), info=calibration())
        assert rig.refusal("TF has no transform from 'front_camera' to 'base'"), rig.output()
        place(1.0, 0.0, 0.0)
        rig.send(scene())
        assert rig.refusal("camera is 0.000 m above the ground"), rig.output()
        assert not clouds
        for number, height in enumerate((1.0, 2.0), start=1):
            place(1.0, 0.0, height)
            rig.send(scene(), stamp=number)
            assert rig.spin_until(lambda n=number: len(clouds) == len(scans) == n), rig.output()  # type: ignore[misc]
            depth = height * F / (39 - CY)
            assert points(clouds[-1])[39, 32, 2] == pytest.approx(depth, rel=1e-5)
            ranges = np.array(scans[-1].ranges)
            assert scans[-1].header.frame_id == "base"
            assert ranges.min() == pytest.approx(1.0 + depth, rel=0.01), "from the base's origin"
        # turned left by 90 degrees: the scan turns, the cloud in the camera's frame does not
        place(1.0, 0.0, 2.0, quaternion=(-np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)))
        rig.send(scene(), stamp=3)
        assert rig.spin_until(lambda: len(clouds) == len(scans) == 3), rig.output()
        np.testing.assert_allclose(points(clouds[2]), points(clouds[1]), rtol=1e-4, atol=1e-4)
        assert scans[2].angle_min > scans[1].angle_min + 1.0
        told = rig.next_diagnostics()
        assert told["camera_position"] == "1.000 0.000 2.000"
        assert 0 < float(told["ground_nearest_m"]) < float(told["ground_farthest_m"])
        # the camera's body frame, as simulators stamp it: x forward instead of the optical frame's
        # z
        place(1.0, 0.0, 2.0, quaternion=(0.0, 0.0, 0.0, 1.0))
        rig.send(scene(), stamp=4)
        assert rig.spin_until(lambda: len(clouds) == len(scans) == 4), rig.output()
        assert np.isnan(points(clouds[3])).all()
        assert scans[3].angle_min <= scans[3].angle_max and np.isnan(scans[3].ranges).all()
        report = rig.next_diagnostics()
        assert report["level"] == "1"
        assert "is 'front_camera' an optical frame (z forward" in report["message"]
        assert rig.output().count("no pixel of the image meets the ground") == 1
        # fixed; and a pose that another chain of transforms rounds differently counts as the same
        for number, height in ((5, 2.0), (6, 2.00005)):
            place(1.0, 0.0, height)
            rig.send(scene(), stamp=number)
            assert rig.spin_until(lambda n=number: len(clouds) == n), rig.output()  # type: ignore[misc]
        assert clouds[5].data == clouds[4].data
        assert "optical frame" not in rig.next_diagnostics()["message"]
        assert rig.end() == 0, rig.output()
    finally:
        rig.close()


def test_a_mask_waits_for_its_transform(tmp_path: Path) -> None:
    with TfRig(tmp_path, transform_timeout=10.0) as rig:
        rig.activate_with_classes()
        clouds = rig.subscribe("points", PointCloud2)
        sent = [rig.send(scene(), stamp=100, info=calibration())]
        rig.sync()  # the node answers while they wait; its queue has room for one
        sent.append(rig.send(scene(), stamp=101))
        rig.sync()
        report = rig.next_diagnostics()
        assert not clouds and (report["waiting"], report["refused"]) == ("2", "0")
        rig.place(1.0, 0.0, 1.0)
        assert rig.spin_until(lambda: len(clouds) == 2), rig.output()
        assert [cloud.header for cloud in clouds] == [mask.header for mask in sent]
        assert not (tmp_path / "cleared").exists()
        rig.send(scene(), stamp=20)  # a bag played without /clock has restarted
        assert rig.spin_until(lambda: len(clouds) == 3), rig.output()
        assert (tmp_path / "cleared").exists()
        (tmp_path / "transform.json").unlink()
        rig.send(scene(), stamp=21)
        rig.sync()
        assert rig.transition("deactivate")
        assert rig.refusal("deactivated while the mask waited"), rig.output()


def test_a_mask_that_waits_keeps_its_calibration(tmp_path: Path) -> None:
    with TfRig(tmp_path, transform_timeout=10.0) as rig:
        rig.activate_with_classes()
        clouds = rig.subscribe("points", PointCloud2)
        rig.send(scene(), stamp=100, info=calibration())
        rig.sync()
        # The next image shows a part of the sensor 10 rows further down, and the last one is small.
        lower = calibration(k=[F, 0.0, CX, 0.0, F, CY - 10, 0.0, 0.0, 1.0])
        rig.send(scene(), stamp=101, info=lower)
        rig.sync()
        binned = calibration(binning_x=2, binning_y=2)
        rig.send(np.ascontiguousarray(scene()[::2, ::2]), stamp=102, info=binned)
        rig.sync()
        rig.place(1.0, 0.0, 1.0)
        assert rig.spin_until(lambda: len(clouds) == 3), rig.output()
        depths = [points(cloud)[row, 2, 2] for cloud, row in zip(clouds, (46, 46, 23), strict=True)]
        expected = [F / (46 - CY), F / (46 - CY + 10), F / (46 - CY)]
        np.testing.assert_allclose(depths, expected, rtol=1e-5)


@pytest.mark.fault(
    "a simulation slower than real time",
    "a mask waits for its transform by /clock, as TF does, but 10 s at most",
)
def test_a_mask_waits_by_the_clock_of_the_simulation(tmp_path: Path) -> None:
    with TfRig(tmp_path, transform_timeout=0.3, use_sim_time=True) as rig:
        clock = rig.node.create_publisher(ClockMessage, "/clock", 10)
        rig.activate_with_classes()
        clouds = rig.subscribe("points", PointCloud2)

        def tell(seconds: float) -> None:
            stamp = Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))
            clock.publish(ClockMessage(clock=stamp))
            rig.spin_until(lambda: False, 0.2)

        tell(100.0)
        rig.send(scene(), stamp=100, info=calibration())
        for tenth in range(5):  # a real second
            tell(100.0 + 0.02 * tenth)
        rig.place(1.0, 0.0, 1.0)
        assert rig.spin_until(lambda: len(clouds) == 1), rig.output()
        (tmp_path / "transform.json").unlink()
        rig.send(scene(), stamp=101)
        rig.sync()
        tell(100.5)
        assert rig.refusal("TF has no transform from 'front_camera' to 'base'"), rig.output()
