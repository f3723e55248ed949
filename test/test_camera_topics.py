# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Names of the camera topics of `fuse_node`, before and after remapping."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from magicfuse_ros.parameters import FuseParameters
from magicfuse_ros.ros.camera import camera_info_topic
from ros_rig import Domain


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    domain, made = Domain(), Context()
    rclpy.init(context=made, domain_id=domain.number)
    yield made
    rclpy.shutdown(context=made)
    domain.free()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["image:=/cams/front/image_raw"], "/cams/front/camera_info"),
        (["image:=/cams/image", "camera_info:=/other/camera_info"], "/other/camera_info"),
        (["image:=/cams/image", "camera_info:=/front/camera_info"], "/front/camera_info"),
        (["image:=/cams/image", "/front/camera_info:=/front/camera_info"], "/front/camera_info"),
        (["image:=/cams/image", "fuse_node:camera_info:=camera_info"], "/front/camera_info"),
        (["image:=/cams/image", "rear_node:camera_info:=camera_info"], "/cams/camera_info"),
    ],
)
def test_camera_info_lies_beside_the_image_unless_it_is_remapped(
    rules: list[str], expected: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--ros-args", *(word for rule in rules for word in ("-r", rule))]
    monkeypatch.setattr(sys, "argv", ["fuse_node", *arguments])
    node = Node("fuse_node", namespace="/front", context=context, cli_args=arguments)
    try:
        assert camera_info_topic(node, FuseParameters()) == expected
    finally:
        node.destroy_node()
