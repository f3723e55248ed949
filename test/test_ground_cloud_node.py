# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`ground_cloud_node` over DDS, as Nav2 and a driver see it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header, String

from magicfuse_ros.image_codec import encode_mono8
from magicfuse_ros.ros.causes import cause
from magicfuse_ros.ros.lost_messages import SUPPORTED
from ros_rig import LATCHED, RELIABLE, Rig

ROWS, COLUMNS, F, CX, CY = 48, 64, 50.0, 32.0, 24.0
HEIGHT = 1.5
ROAD, CAR, SKY = 0, 1, 2
CLASSES = [
    {"class_id": number, "class_name": name}
    for number, name in ((ROAD, "road"), (CAR, "car"), (SKY, "sky"))
]
LABELS = String(data=json.dumps({"class_map": CLASSES, "threshold": 0.0}))


class GroundRig(Rig):
    """A `ground_cloud_node` in `/front`, its camera and its segmentation."""

    name = "/front/ground_cloud_node"
    command = (sys.executable, "-m", "magicfuse_ros.ros.ground_cloud_node")
    config = "ground_cloud.yaml"
    remappings = ("mask:=/seg/mask", "label_info:=/seg/label_info", "camera_info:=/camera/info")

    def __init__(self, folder: Path, environment: Any = None, **parameters: Any) -> None:
        super().__init__(folder, environment, **parameters)
        self.masks = self.node.create_publisher(Image, "/seg/mask", RELIABLE)
        self.infos = self.node.create_publisher(CameraInfo, "/camera/info", RELIABLE)
        self.labels = self.node.create_publisher(String, "/seg/label_info", LATCHED)

    def activate(self) -> None:
        self.activate_for(self.masks, self.infos, self.labels)

    def activate_with_classes(self) -> None:
        self.activate()
        self.labels.publish(LABELS)
        self.wait_for_classes()

    def send(self, content: np.ndarray, stamp: int = 1, *, info: CameraInfo | None = None) -> Image:
        """Publish a calibration, if any, and a mask."""
        if info is not None:
            self.infos.publish(info)
            self.sync()
        message = mask(content, stamp)
        self.masks.publish(message)
        return message

    def wait_for_classes(self, times: int = 1) -> None:
        """Wait until the node has read the class names the given number of times."""
        assert self.spin_until(lambda: self.output().count("ground: road") == times), self.output()

    def refusal(self, words: str, times: int = 1) -> bool:
        """Wait until the node reports `times` refused masks for the cause in `words`."""

        def told() -> bool:
            report = self.diagnostics[-1] if self.diagnostics else {}
            return any(
                key.startswith("refused: ") and cause(words) in key and value == str(times)
                for key, value in report.items()
            )

        return self.spin_until(told)


def mask(content: np.ndarray, stamp: int = 1) -> Image:
    encoded = encode_mono8(content)
    message = Image(encoding="mono8", height=encoded.height, width=encoded.width, step=encoded.step)
    message.header.frame_id = "front_camera"
    message.header.stamp.sec = stamp
    message.data.frombytes(encoded.data)
    return message


def calibration(**changes: Any) -> CameraInfo:
    fields = {
        "height": ROWS, "width": COLUMNS, "distortion_model": "plumb_bob", "d": [0.0] * 5,
        "k": [F, 0.0, CX, 0.0, F, CY, 0.0, 0.0, 1.0],
    }  # fmt: skip
    return CameraInfo(**{**fields, **changes})


def scene() -> np.ndarray:
    """Road under sky; a car from row 20 down to row 39 in the columns 30 to 33."""
    content = np.full((ROWS, COLUMNS), ROAD, np.uint8)
    content[: int(CY) + 1] = SKY
    content[20:40, 30:34] = CAR
    return content


def points(cloud: PointCloud2) -> np.ndarray:
    """Return [H, W, 3], read according to the message's own description."""
    offsets = {field.name: field.offset for field in cloud.fields}
    assert all(
        field.datatype == PointField.FLOAT32 and field.count == 1
        for field in cloud.fields
        if field.name in "xyz"
    )
    dtype = np.dtype(
        {
            "names": ["x", "y", "z"],
            "formats": ["<f4"] * 3,
            "offsets": [offsets[axis] for axis in "xyz"],
            "itemsize": cloud.point_step,
        }
    )
    assert cloud.row_step == cloud.point_step * cloud.width
    assert not cloud.is_bigendian
    found = np.frombuffer(cloud.data, dtype).reshape(cloud.height, cloud.width)
    return np.stack([found[axis] for axis in "xyz"], axis=-1)


FIXED: dict[str, Any] = {"use_tf": False, "camera_height": HEIGHT, "scan_increment": 0.03}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GroundRig]:
    """An active node that knows its classes, for all tests that do not change it."""
    with GroundRig(tmp_path_factory.mktemp("ground"), **FIXED) as rig:
        rig.activate_with_classes()
        yield rig


@pytest.fixture
def rig(shared: GroundRig) -> Iterator[GroundRig]:
    yield shared
    shared.unsubscribe_all()


def receive(rig: GroundRig, *lists: Sequence[Any]) -> None:
    assert rig.spin_until(lambda: all(lists)), rig.output()


def test_the_cloud_lies_pixel_for_pixel_under_the_mask(rig: GroundRig) -> None:
    clouds = rig.subscribe("points", PointCloud2)
    sent = rig.send(scene(), stamp=12, info=calibration())
    receive(rig, clouds)
    (cloud,) = clouds
    assert cloud.header == sent.header
    assert (cloud.height, cloud.width) == (ROWS, COLUMNS)
    assert len(cloud.data) == cloud.row_step * cloud.height
    found = points(cloud)
    assert np.isnan(found[: int(CY) + 1]).all()
    v, u = 45, 5
    depth = HEIGHT * F / (v - CY)
    np.testing.assert_allclose(found[v, u], [(u - CX) / F * depth, HEIGHT, depth], rtol=1e-5)
    labels = np.frombuffer(cloud.data, "<u4").reshape(ROWS, COLUMNS, 4)[..., 3]
    np.testing.assert_array_equal(labels, scene())
    car = np.isfinite(found[:40, 30:34, 2])
    assert car[39].all() and not car[20:38].any(), "of the car only its foot"


def test_the_scan_has_the_range_of_the_cars_foot(rig: GroundRig) -> None:
    scans = rig.subscribe("scan", LaserScan)
    sent = rig.send(scene(), stamp=13, info=calibration())
    receive(rig, scans)
    (scan,) = scans
    assert scan.header == Header(stamp=sent.header.stamp, frame_id="base_footprint")
    ranges = np.array(scan.ranges)
    angles = scan.angle_min + scan.angle_increment * np.arange(len(ranges))
    assert scan.angle_max == pytest.approx(angles[-1], abs=1e-5)
    assert scan.range_min == 0 and scan.range_max == pytest.approx(15.0)
    hits = np.isfinite(ranges)
    np.testing.assert_allclose(ranges[hits], HEIGHT * F / (39 - CY), rtol=0.01)
    assert np.abs(angles[hits]).max() < 2.5 / F + scan.angle_increment
    assert (ranges[~hits] == np.inf).all() and hits.sum() >= 2


def test_a_new_calibration_is_used(rig: GroundRig) -> None:
    clouds = rig.subscribe("points", PointCloud2)
    rig.send(scene(), info=calibration())
    receive(rig, clouds)
    other = [100.0, 0.0, CX, 0.0, 100.0, CY, 0.0, 0.0, 1.0]
    rig.send(scene(), info=calibration(k=other))
    assert rig.spin_until(lambda: len(clouds) == 2), rig.output()
    assert points(clouds[1])[45, 5, 2] == pytest.approx(2 * points(clouds[0])[45, 5, 2])


@pytest.mark.parametrize(
    "window",
    [
        {"height": 2 * ROWS, "width": 2 * COLUMNS, "binning_x": 2, "binning_y": 2},
        {"height": 4 * ROWS, "width": 4 * COLUMNS, "roi": (COLUMNS, 2 * ROWS, ROWS, COLUMNS)},
    ],
)
def test_the_image_is_a_window_of_the_sensor(rig: GroundRig, window: dict[str, Any]) -> None:
    clouds = rig.subscribe("points", PointCloud2)
    rig.send(scene(), info=calibration())
    receive(rig, clouds)
    x, y, rows, columns = window.pop("roi", (0, 0, 0, 0))
    step = window.get("binning_x", 1)
    k = [F * step, 0.0, CX * step + x, 0.0, F * step, CY * step + y, 0.0, 0.0, 1.0]
    info = calibration(k=k, **window)
    info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width = x, y, rows, columns
    rig.send(scene(), info=info)
    assert rig.spin_until(lambda: len(clouds) == 2), rig.output()
    np.testing.assert_allclose(points(clouds[1]), points(clouds[0]), rtol=1e-6)


def test_rays_are_made_for_a_mask_that_fits_only(rig: GroundRig) -> None:
    rig.subscribe("scan", LaserScan)
    before = rig.resources().rss_mb
    info = calibration(height=12000, width=16000, binning_x=2)
    rig.send(scene(), info=info)
    words = "64x48; expected the camera_info's 8000x12000 (16000x12000 after region of interest"
    assert rig.spin_until(lambda: words in rig.output()), rig.output()
    assert rig.resources().rss_mb < before + 50


def test_bad_input_is_refused_and_counted(rig: GroundRig) -> None:
    clouds = rig.subscribe("points", PointCloud2)
    rig.send(np.zeros((ROWS, COLUMNS // 2), np.uint8), info=calibration())
    rig.sync()  # an earlier test may have left a refusal of the same cause
    assert rig.refusal("mask is 32x48; expected the camera_info's 64x48"), rig.output()
    rig.send(scene(), info=calibration(k=[0.0] * 9))
    assert rig.refusal("focal lengths 0 and 0"), rig.output()
    rig.send(scene(), info=calibration(distortion_model="mei", d=[0.1]))
    assert rig.refusal("distortion_model is 'mei'"), rig.output()
    rig.infos.publish(calibration())
    rig.sync()
    colour, short, narrow = (mask(scene()) for _ in range(3))
    colour.encoding = "bgr8"
    del short.data[-10:]
    narrow.step = 3
    for bad in (colour, short, narrow):
        rig.masks.publish(bad)
        rig.sync()
    for words in ("'bgr8'; expected mono8", "3062 bytes long", "step is 3"):
        assert rig.refusal(words), rig.output()
    assert any("refused or lost" in report["message"] for report in rig.diagnostics)
    assert rig.output().count("(logged once): mask is 32x48") == 1
    assert not clouds
    rig.send(scene())
    receive(rig, clouds)
    assert rig.state() == "active"
    assert rig.next_diagnostics()["failed"] == "0"


def test_masks_that_come_too_fast_are_counted(rig: GroundRig) -> None:
    rig.send(scene(), info=calibration())
    rig.sync()
    before = rig.next_diagnostics()
    for _ in range(200):
        rig.masks.publish(mask(scene()))
    rig.sync()
    after = rig.next_diagnostics()
    received, lost = (int(after[key]) - int(before[key]) for key in ("received", "lost"))
    if SUPPORTED:
        assert received + lost == 200


def test_a_second_publisher_of_the_mask_is_named(rig: GroundRig) -> None:
    other = rig.node.create_publisher(Image, "/seg/mask", RELIABLE)
    assert rig.says("several publishers of /seg/mask"), rig.diagnostics[-1:]
    rig.node.destroy_publisher(other)


def test_labels_that_cannot_be_read_leave_the_old_ones(rig: GroundRig) -> None:
    clouds = rig.subscribe("points", PointCloud2)
    for text in ("{", "[" * 10**5, '{"class_map": [{"class_id": 300, "class_name": "x"}]}'):
        rig.labels.publish(String(data=text))
        rig.sync()
    assert rig.says("class id 300"), rig.output()
    rig.send(scene(), info=calibration())
    receive(rig, clouds)
    rig.labels.publish(LABELS)
    rig.sync()
    assert "label_info" not in rig.next_diagnostics()["message"]


def test_classes_that_nobody_knows_and_overrides_that_fit_nothing_are_named(
    tmp_path: Path,
) -> None:
    names = "qos_overrides./front/ground_cloud_node/points.publisher"
    overrides: dict[str, Any] = {
        f"{names}.reliability": "best_effort",
        "qos_overrides./front/ground_cloud_node/pionts.publisher.depth": 3,
    }
    classes = {"ground_classes": ["road", "sidewalk"], "passable_classes": ["Sky"]}
    with GroundRig(tmp_path, use_tf=False, **classes, **overrides) as rig:
        rig.activate()
        rig.labels.publish(LABELS)
        assert rig.says("sidewalk, Sky; label_info has"), rig.diagnostics[-1:]
        (points,) = rig.node.get_publishers_info_by_topic("/front/ground_cloud_node/points")
        assert points.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert "/pionts.publisher.depth' is not used" in rig.output()
        assert f"{names}.reliability" not in rig.output()


def test_without_a_subscriber_nothing_is_computed(rig: GroundRig) -> None:
    before = rig.next_diagnostics()
    rig.send(scene(), info=calibration())
    rig.sync()
    after = rig.next_diagnostics()
    assert int(after["idle"]) == int(before["idle"]) + 1
    assert after["published"] == before["published"]


def test_parameters_are_fixed_while_configured(rig: GroundRig) -> None:
    refused = rig.set(camera_height=2.0)
    assert not refused.successful
    assert "camera_height can only change while the node is unconfigured" in refused.reason
    assert not rig.set(camera_height=-1.0).successful


def test_transitions_and_back(tmp_path: Path) -> None:
    with GroundRig(tmp_path, **FIXED, passable_classes=[]) as rig:
        rig.labels.publish(LABELS)
        for count in (1, 2):
            rig.activate()
            rig.wait_for_classes(count)
            clouds = rig.subscribe("points", PointCloud2)
            rig.send(scene())
            assert rig.refusal("no camera_info has arrived on /camera/info", count), rig.output()
            rig.send(scene(), info=calibration())
            receive(rig, clouds)
            assert rig.next_diagnostics()["published"] == str(count)
            assert rig.transition("deactivate")
            rig.masks.publish(mask(scene()))
            rig.sync()
            assert len(clouds) == 1
            rig.unsubscribe_all()
            assert rig.transition("cleanup")
            assert rig.state() == "unconfigured"
            topic = f"{rig.name}/points"
            assert rig.spin_until(lambda: rig.node.count_publishers(topic) == 0)  # noqa: B023
            assert rig.set(passable_classes=[]).successful
        assert rig.end(signal.SIGTERM) == 0, rig.output()


def test_without_tf2_the_node_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tf2_ros.py").write_text("raise ImportError('not here')\n")
    with GroundRig(tmp_path, first_on_path(tmp_path), camera_height=2.0) as rig:
        assert not rig.transition("configure")
        assert rig.state() == "unconfigured"
        report = rig.next_diagnostics()
        assert report["level"] == "2"
        assert "tf2_ros cannot be imported (not here)" in report["message"]
        assert "set use_tf: false" in report["message"]
        assert rig.set(use_tf=False).successful
        rig.activate()
        assert rig.next_diagnostics()["failure"] == ""


def first_on_path(folder: Path) -> dict[str, str]:
    paths = (str(folder), os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
