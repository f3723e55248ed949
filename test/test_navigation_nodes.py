# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Both nodes, connected as in navigation.launch.py, and Nav2's requirements for them.

The rules are those of github.com/ros-navigation/semantic_segmentation_layer, in its functions
syncSegmConfPointcloudCb and bufferSegmentation.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, LaserScan, PointCloud2
from std_msgs.msg import String

from magicfuse_ros.ros.session import Session
from ros_rig import LATCHED, RELIABLE, ROOT, TIMEOUT_S, Rig, image
from test_ground_cloud_node import points

SENSOR_DATA = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class NavigationRig(Rig):
    """`fuse_node` and `ground_cloud_node` in `/front`."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        super().__init__(folder, bundle=str(bundle))
        launch = (ROOT / "launch" / "navigation.launch.py").read_text()
        rules = re.findall(r'\("(\w+)", "(fuse_node/[a-z_/]+)"\)', launch)
        arguments = ["-r", "__node:=ground_cloud_node", "-r", "__ns:=/front"]
        arguments += ["--params-file", str(ROOT / "config" / "ground_cloud.yaml")]
        arguments += ["-p", "use_tf:=false", "-p", "scan_increment:=0.03"]
        arguments += [word for name, topic in rules for word in ("-r", f"{name}:={topic}")]
        module = "magicfuse_ros.ros.ground_cloud_node"
        command = [sys.executable, "-m", module, "--ros-args", *arguments]
        self.ground = subprocess.Popen(command)
        self.infos = self.node.create_publisher(CameraInfo, "/camera/camera_info", RELIABLE)

    def activate(self) -> None:
        with Session("navigation_client") as session:
            ground = "/front/ground_cloud_node"
            assert session.bring_up(ground, lambda: self.ground.poll() is None, TIMEOUT_S)
        self.activate_for(self.camera, self.infos)

    def close(self) -> None:
        if self.ground.poll() is None:
            self.ground.kill()
            self.ground.wait()
        super().close()


def test_nav2_can_use_what_both_nodes_publish(tmp_path: Path, tiny_bundle: Path) -> None:
    with NavigationRig(tmp_path, tiny_bundle) as rig:
        rig.activate()
        masks = rig.subscribe("segmentation/mask", qos=SENSOR_DATA)
        confidences = rig.subscribe("segmentation/confidence", qos=SENSOR_DATA)
        labels = rig.subscribe("segmentation/label_info", String, LATCHED)
        k = [60.0, 0.0, 48.0, 0.0, 60.0, 10.0, 0.0, 0.0, 1.0]
        rig.infos.publish(CameraInfo(height=64, width=96, distortion_model="plumb_bob", k=k))
        rig.sync()
        rig.name = "/front/ground_cloud_node"
        clouds = rig.subscribe("points", PointCloud2, SENSOR_DATA)
        scans = rig.subscribe("scan", LaserScan, SENSOR_DATA)
        sent = image(stamp=1)

        def published() -> bool:
            # fuse_node forwards the camera_info with its first frame, which may be too late
            if not clouds:
                sent.header.stamp.sec += 1
                rig.camera.publish(sent)
                rig.spin_until(lambda: bool(clouds), 1.0)
            if not (clouds and scans and labels):
                return False
            # Topics below the cloud come from another process and may arrive later.
            header = clouds[0].header
            return all(header in [m.header for m in beneath] for beneath in (masks, confidences))

        assert rig.spin_until(published), rig.output()
        cloud = clouds[0]
        (mask,) = [m for m in masks if m.header == cloud.header]
        (confidence,) = [m for m in confidences if m.header == cloud.header]
        assert cloud.header.frame_id == sent.header.frame_id
        assert mask.encoding == confidence.encoding == "mono8"
        assert (mask.height, mask.width, mask.step) == (64, 96, 96)
        size = mask.width * mask.height
        assert cloud.width * cloud.height == size
        assert (cloud.width, cloud.height) == (mask.width, mask.height)
        assert len(mask.data) == len(confidence.data) == size
        names = {c["class_id"]: c["class_name"] for c in json.loads(labels[0].data)["class_map"]}
        content = np.frombuffer(mask.data, np.uint8).reshape(64, 96)
        assert set(np.unique(content)) <= set(names)
        found = points(cloud)
        known = np.isfinite(found[..., 2])
        assert not known[:11].any(), "nothing above the horizon"
        assert known[11:].any()
        assert "sky" not in {names[number] for number in np.unique(content[known])}
        assert (np.linalg.norm(found[known], axis=1) > 1.5 * 0.99).all(), (
            "the ground is 1.5 m below"
        )
        assert scans[0].header.frame_id == "base_footprint"
        assert scans[0].header.stamp in [message.header.stamp for message in clouds]
        rig.ground.send_signal(signal.SIGINT)
        assert rig.ground.wait(TIMEOUT_S) == 0
