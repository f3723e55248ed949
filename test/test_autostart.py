# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Nodes that activate themselves."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from ros_rig import Rig

# A node with a short delay before its next attempt.
IMPATIENT = """
from magicfuse_ros.ros import autostart, {node}
autostart.RETRY_S, autostart.LONGEST_RETRY_S = 0.1, 0.4
{node}.main()
"""


class GroundRig(Rig):
    name = "/front/ground_cloud_node"
    config = "ground_cloud.yaml"
    remappings = ()


def impatient(node: str) -> tuple[str, ...]:
    return (sys.executable, "-c", IMPATIENT.format(node=node))


@pytest.mark.fault(
    "autostart fails because the bundle is not there yet",
    "ERROR with the reason; retried after 5, 10, 20, ... at most 60 s until the node is active",
)
def test_a_failed_autostart_is_tried_again(tmp_path: Path, tiny_bundle: Path) -> None:
    late = tmp_path / "late"
    with Rig(tmp_path, command=impatient("fuse_node"), bundle=str(late), autostart=True) as rig:
        assert rig.spin_until(lambda: bool(rig.diagnostics)), rig.output()
        report = rig.next_diagnostics()
        assert report["level"] == "2" and "is not a folder" in report["message"]
        rig.wait(1.0)
        assert rig.output().count("configuration failed") == 1  # only once
        assert not rig.transition("configure")
        rig.wait(1.0)
        assert rig.output().count("configuration failed") == 2  # whoever asks sees the reason
        shutil.copytree(tiny_bundle, tmp_path / "copy")
        (tmp_path / "copy").rename(late)
        active = "waiting for images"
        assert rig.spin_until(lambda: active in rig.output()), rig.output()
        assert rig.state() == "active"
        assert rig.output().count("configuration failed") == 2
        assert rig.output().count("networks are ready") == 1

        assert rig.transition("deactivate")
        rig.wait(1.0)
        assert rig.state() == "inactive"  # the user's action lasts


def test_the_ground_node_starts_itself_unless_somebody_else_does(tmp_path: Path) -> None:
    command = impatient("ground_cloud_node")
    with GroundRig(tmp_path, command=command, use_tf=False, autostart=True) as rig:
        assert rig.spin_until(lambda: "waiting for masks" in rig.output()), rig.output()
        assert rig.state() == "active"
