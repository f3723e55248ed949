# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The files for Nav2, RViz and Foxglove use names that the nodes and the tools define."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.parameters import GroundParameters
from magicfuse_ros.topics import CAMERA_INFO, IMAGE_TOPICS, LABELS, NODE

ROOT = Path(__file__).resolve().parents[1]
NODES = ("fuse_node", "ground_cloud_node")
# From the plugins_description.xml of rviz_default_plugins and rviz_common.
RVIZ_CLASSES = {
    "rviz_common": {"Displays", "Views"},
    "rviz_default_plugins": {
        "Grid", "TF", "Image", "PointCloud2", "LaserScan", "MoveCamera", "Select", "Measure",
        "Orbit",
    },
}  # fmt: skip
FOXGLOVE_PANELS = {"Image", "3D", "DiagnosticSummary", "DiagnosticStatusPanel"}


def topics_of_the_nodes() -> set[str]:
    """Return every topic that the nodes advertise, with the launch file's node names."""
    found = {f"{NODE}/{topic.name}" for topic in IMAGE_TOPICS}
    found |= {f"{NODE}/{name}" for name in (LABELS, CAMERA_INFO)}
    source = (ROOT / "magicfuse_ros" / "ros" / "ground_cloud_node.py").read_text()
    found |= {f"/ground_cloud_node/{name}" for name in re.findall(r'"~/([a-z_/]+)"', source)}
    assert len(found) >= 10
    return found


def strings(value: Any) -> Iterator[str]:
    """Yield every string and key in a YAML or JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize("file", ["nav2_semantic.yaml", "fuse.rviz", "foxglove_layout.json"])
def test_the_topics_exist(file: str) -> None:
    content = yaml.safe_load((ROOT / "config" / file).read_text())
    named = {text for text in strings(content) if re.match(rf"/({'|'.join(NODES)})/", text)}
    assert len(named) >= 5
    assert named <= topics_of_the_nodes()


def layer(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "config" / "nav2_semantic.yaml").read_text())
    found: dict[str, Any] = content["local_costmap"]["local_costmap"]["ros__parameters"][name]
    return found


def source(of: str = "semantic_layer") -> dict[str, Any]:
    found: dict[str, Any] = layer(of)[layer(of)["observation_sources"]]
    return found


@pytest.mark.parametrize("pitch", [-0.035, -0.0175, 0.0, 0.0175, 0.035])
@pytest.mark.parametrize("below", [0.0, 0.1, 0.35])
def test_nav2_keeps_every_hit_of_the_scan(pitch: float, below: float) -> None:
    """With base_footprint below the origin of the global frame, on a vehicle that pitches."""
    scan, defaults = source("obstacle_layer"), GroundParameters()
    for limits in (layer("obstacle_layer"), scan):
        for distance in (1.0, scan["obstacle_max_range"]):
            z = -below - distance * math.sin(pitch)
            assert limits["min_obstacle_height"] <= z <= limits["max_obstacle_height"]
    assert scan["inf_is_valid"]
    for limit in ("obstacle_max_range", "raytrace_max_range"):
        assert scan[limit] < defaults.max_range, "free beams would be marked as obstacles"
    assert 0 < scan["raytrace_min_range"] < scan["raytrace_max_range"], "near marks must stay"
    assert 0 < scan["expected_update_rate"] <= 2.0, "a scan that no longer comes stops the robot"


def test_nav2_gets_a_cost_for_every_class() -> None:
    camera = source()
    groups = [camera[name] for name in camera["class_types"]]
    listed = [name for group in groups for name in group["classes"]]
    names = [c.name for c in Bundle.load(default_bundle()).manifest.classes]
    assert sorted(listed) == sorted(names)
    for group in groups:
        assert 0 <= group["base_cost"] <= group["max_cost"] <= 254
        assert 0 <= group["mark_confidence"] <= 255


def test_nav2_blocks_what_the_node_calls_blocking() -> None:
    camera, defaults = source(), GroundParameters()
    free = {*defaults.ground_classes, *defaults.passable_classes}
    for kind in camera["class_types"]:
        blocks = camera[kind]["max_cost"] == 254
        assert all((name not in free) == blocks for name in camera[kind]["classes"]), kind
    assert camera["max_obstacle_distance"] < defaults.max_range
    assert camera["min_obstacle_distance"] < defaults.camera_height


def test_rviz_knows_the_classes() -> None:
    manager = yaml.safe_load((ROOT / "config" / "fuse.rviz").read_text())
    found = [text for text in strings(manager) if text.startswith("rviz_")]
    assert len(found) > 8
    for name in found:
        package, _, plugin = name.partition("/")
        assert plugin in RVIZ_CLASSES[package], name
    displays = manager["Visualization Manager"]["Displays"]
    fixed = manager["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert fixed == GroundParameters().base_frame
    (cloud,) = [d for d in displays if d["Class"] == "rviz_default_plugins/PointCloud2"]
    assert cloud["Channel Name"] == "label"


def test_every_foxglove_panel_is_laid_out_once() -> None:
    layout = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())

    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            assert node["direction"] in ("row", "column") and 0 < node["splitPercentage"] < 100
            yield from leaves(node["first"])
            yield from leaves(node["second"])

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])
    assert {panel.partition("!")[0] for panel in layout["configById"]} <= FOXGLOVE_PANELS
    (scene,) = [p for name, p in layout["configById"].items() if name.startswith("3D!")]
    assert scene["followTf"] == GroundParameters().base_frame


def test_the_launch_file_connects_the_nodes() -> None:
    text = (ROOT / "launch" / "navigation.launch.py").read_text()
    node = (ROOT / "magicfuse_ros" / "ros" / "ground_cloud_node.py").read_text()
    rules = dict(re.findall(r'\("(\w+)", "(fuse_node/[a-z_/]+)"\)', text))
    assert set(rules) == {"mask", "label_info", "camera_info"}
    for name, topic in rules.items():
        assert f'"{name}"' in node, name
        assert f"/{topic}" in topics_of_the_nodes()
    setup = (ROOT / "setup.py").read_text()
    executable = re.search(r'managed_node\(context, "(\w+)"', text)
    assert executable and f'"{executable[1]} = ' in setup
