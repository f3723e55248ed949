# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The launch files, executed by ROS's launch with stand-ins for the executables."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
FILES = sorted(path.name for path in LAUNCH.glob("*.launch.py"))
IN_ROS = {"launch", "launch_ros", "ament_index_python"}
COMMON = {
    "bundle", "backend", "threads", "params_file", "namespace", "autostart", "respawn",
    "fastdds_profile",
}  # fmt: skip
FROM_THE_CAMERA = {"image", "image_transport", "use_sim_time"}  # which a bag decides by itself
# As a player, an executable says what it found in the bag.
STAND_IN = """#!{python} -SE
import json, os, sys, time
from pathlib import Path
name = Path(sys.argv[0]).name
folder = Path(os.environ["RECORDS"])
turn = len(list(folder.glob(name + ".*")))
files = [Path(a).read_text() for a, b in zip(sys.argv[1:], sys.argv) if b == "--params-file"]
record = dict(name=name, arguments=sys.argv[1:], files=files, environment=dict(os.environ))
(folder / f"{{name}}.{{turn}}.{{os.getpid()}}").write_text(json.dumps(record))
codes = [int(code) for code in os.environ.get(name, "0").split()]
if name == "replay_node" and not codes[0]:
    print('{{"image": "/front/image_raw", "image_transport": "compressed"}}', flush=True)
    while not list(folder.glob("fuse_node.*")):
        time.sleep(0.01)
code = codes[turn] if turn < len(codes) else 0
if code == {interrupt}:
    os.kill(os.getppid(), 2)
sys.exit(code)
"""
INTERRUPT = 130  # with this code, an executable also ends the launch, like Ctrl-C
RUN = """
import os, sys
from launch import LaunchDescription, LaunchService
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetParameter
file, *arguments = sys.argv[1:]
service = LaunchService(argv=arguments)
source = PythonLaunchDescriptionSource(file)
given = [argument.split(":=", 1) for argument in arguments]
include = IncludeLaunchDescription(source, launch_arguments=map(tuple, given))
if robot := os.environ.get("ROBOT"):
    include = GroupAction([PushRosNamespace(robot), SetParameter("use_sim_time", True), include])
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""

needs_launch = pytest.mark.skipif(
    not importlib.util.find_spec("launch_ros"),
    reason="launch and launch_ros come with an installation of ROS only",
)


@dataclass(frozen=True)
class Started:
    """An executable that a launch file started."""

    name: str
    arguments: list[str]
    parameters: dict[str, Any]
    environment: dict[str, str]


@dataclass(frozen=True)
class Launched:
    """What became of a launch."""

    code: int
    output: str
    started: list[Started]


def launched(folder: Path, file: str, *arguments: str, **codes: str) -> Launched:
    """Run a launch file to its end.

    Args:
        folder: an empty one.
        file: name of the launch file.
        arguments: of it, "name:=value".
        codes: exit codes of an executable, one for each time it is started; 0 if left out. ROBOT is
            the namespace of a group that includes the launch file and sets use_sim_time.
    """
    records, bin, index = (
        folder / name
        for name in ("records", "lib/magicfuse_ros", "share/ament_index/resource_index/packages")
    )
    for path in (records, bin, index):
        path.mkdir(parents=True)
    (index / "magicfuse_ros").touch()
    for name in ("fuse_node", "fuse_cameras", "ground_cloud_node", "replay_node"):
        (bin / name).write_text(STAND_IN.format(python=sys.executable, interrupt=INTERRUPT))
        (bin / name).chmod(0o755)
    prefixes = [str(folder), *filter(None, [os.environ.get("AMENT_PREFIX_PATH"), sys.prefix])]
    environment = {
        **os.environ,
        **codes,
        "AMENT_PREFIX_PATH": os.pathsep.join(prefixes),
        "RECORDS": str(records),
        "ROS_LOG_DIR": str(folder / "log"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(LAUNCH / file), *arguments],
        capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip
    started = []
    for path in sorted(records.iterdir()):
        record = json.loads(path.read_text())
        parameters: dict[str, Any] = {}
        for text in record["files"]:
            for node in yaml.safe_load(text).values():
                parameters |= node["ros__parameters"]
        arguments_, environment_ = record["arguments"], record["environment"]
        started.append(Started(record["name"], arguments_, parameters, environment_))
    return Launched(done.returncode, done.stdout + done.stderr, started)


def rules(node: Started) -> dict[str, str]:
    """Return the remappings of a node, with its name and namespace."""
    pairs = zip(node.arguments, node.arguments[1:], strict=False)
    found: list[str] = [word for flag, word in pairs if flag == "-r"]
    return dict(rule.split(":=", 1) for rule in found)


@pytest.mark.parametrize("file", sorted(path.name for path in LAUNCH.glob("*.py")))
def test_a_launch_file_imports_only_what_ros_has(file: str) -> None:
    for node in ast.walk(ast.parse((LAUNCH / file).read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for package in (name.partition(".")[0] for name in names):
            assert package in IN_ROS | sys.stdlib_module_names, package


@needs_launch
@pytest.mark.parametrize("file", FILES)
def test_every_launch_file_lists_its_arguments(file: str) -> None:
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH / file))
    listed = {argument.name: argument for argument in description.get_launch_arguments()}
    assert listed.keys() >= COMMON | (set() if file == "replay.launch.py" else FROM_THE_CAMERA)
    for name, argument in listed.items():
        assert argument.description not in ("", "no description given"), name


@needs_launch
@pytest.mark.parametrize(
    ("file", "arguments", "expected"),
    [
        ("fuse.launch.py", [], {"/robot1/fuse_node"}),
        ("fuse.launch.py", ["namespace:=front"], {"/robot1/front/fuse_node"}),
        (
            "cameras.launch.py",
            ["cameras:=front,/rear", "separate:=true"],
            {"/robot1/front/fuse_node", "/rear/fuse_node"},
        ),
        ("replay.launch.py", ["bag:=7"], {"/robot1/fuse_node", "/robot1/replay_node"}),
        ("replay.launch.py", ["bag:=7", "namespace:=/a"], {"/a/fuse_node", "/a/replay_node"}),
    ],
)
def test_a_launch_file_may_be_included_for_one_of_several_robots(
    tmp_path: Path, file: str, arguments: list[str], expected: set[str]
) -> None:
    done = launched(tmp_path, file, "respawn:=false", *arguments, ROBOT="robot1")
    assert done.code == 0, done.output
    named = {f"{rules(node)['__ns'].rstrip('/')}/{rules(node)['__node']}" for node in done.started}
    assert named == expected, done.output
    for node in done.started:
        if node.name == "replay_node":
            assert node.parameters["wait_for"] in expected
        elif file != "replay.launch.py":  # a bag has its own time
            assert "use_sim_time:=True" in node.arguments, "which the group has set"
            assert "use_sim_time" not in node.parameters, "which would come later, and win"


@needs_launch
@pytest.mark.parametrize(
    ("file", "more", "expected"),
    [
        ("fuse.launch.py", [], {"/robot/fuse_node"}),
        ("navigation.launch.py", [], {"/robot/fuse_node", "/robot/ground_cloud_node"}),
        (
            "cameras.launch.py",
            ["cameras:=front,rear", "separate:=true"],
            {"/robot/front/fuse_node", "/robot/rear/fuse_node"},
        ),
        (
            "cameras.launch.py",
            ["cameras:=front,/rear", "separate:=true"],  # /rear is a full name
            {"/robot/front/fuse_node", "/rear/fuse_node"},
        ),
        ("replay.launch.py", ["bag:=7"], {"/robot/fuse_node", "/robot/replay_node"}),
    ],
)
def test_arguments_hold_for_all_that_is_started(
    tmp_path: Path, file: str, more: list[str], expected: set[str]
) -> None:
    arguments = ["namespace:=robot", "use_sim_time:=true", "autostart:=false", "respawn:=false"]
    arguments += ["fastdds_profile:=true", "bundle:=8", "backend:=onnxruntime", "threads:=3"]
    done = launched(tmp_path, file, *arguments, *more)
    assert done.code == 0, done.output
    named = {f"{rules(node)['__ns'].rstrip('/')}/{rules(node)['__node']}" for node in done.started}
    assert named == expected, done.output
    profile = str(LAUNCH.parent / "config" / "fastdds.xml")
    for node in done.started:
        variables = node.environment
        names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
        assert profile in map(variables.get, names)
        if node.name == "replay_node":
            assert node.parameters["bag"] == str(Path("7").resolve())
            assert node.parameters["wait_for"] == "/robot/fuse_node"
            continue
        assert node.parameters["use_sim_time"] is True
        assert node.parameters["autostart"] is False
        if node.name == "fuse_node":
            assert (node.parameters["bundle"], node.parameters["threads"]) == ("8", 3)
            assert node.parameters["backend"] == "onnxruntime"


@needs_launch
def test_cameras_share_a_process_and_all_arguments(tmp_path: Path) -> None:
    arguments = ["cameras:=front, rear", "namespace:=robot", "bundle:=8", "autostart:=false"]
    arguments += ["respawn:=false"]
    done = launched(tmp_path, "cameras.launch.py", *arguments)
    assert done.code == 0, done.output
    (node,) = done.started
    # No name: it would be that of every node.
    assert (node.name, rules(node)) == ("fuse_cameras", {"__ns": "/robot", "image": "image_raw"})
    assert node.parameters["cameras"] == ["front", "rear"]
    assert (node.parameters["bundle"], node.parameters["autostart"]) == ("8", False)
    assert node.parameters["threads"] == 0  # the process shares all cores


@needs_launch
def test_a_replay_listens_to_the_camera_of_the_bag(tmp_path: Path) -> None:
    done = launched(tmp_path, "replay.launch.py", "bag:=drive.mcap", "respawn:=false", "loop:=2")
    assert done.code == 0, done.output
    fuse, player = done.started
    assert rules(fuse)["image"] == "/front/image_raw"
    assert fuse.parameters["image_transport"] == "compressed"
    assert fuse.parameters["use_sim_time"] and fuse.parameters["autostart"]
    assert player.parameters["loop"] == 2


@needs_launch
def test_a_player_that_fails_ends_the_launch(tmp_path: Path) -> None:
    done = launched(tmp_path, "replay.launch.py", "bag:=drive.mcap", replay_node="1")
    assert done.code == 1, done.output
    assert "failed with exit code 1" in done.output


@needs_launch
@pytest.mark.parametrize("refusing", ["fuse_node", "ground_cloud_node"])
def test_a_node_that_refuses_its_configuration_ends_the_launch(
    tmp_path: Path, refusing: str
) -> None:
    other = {"fuse_node", "ground_cloud_node"} - {refusing}
    codes = {refusing: "1", other.pop(): "70 70 70 70 70"}  # the other one is started again
    done = launched(tmp_path, "navigation.launch.py", **codes)
    assert done.code == 1, done.output
    assert [node.name for node in done.started].count(refusing) == 1
    assert f"{refusing}-" in done.output and "cannot start" in done.output


@needs_launch
def test_a_node_that_has_run_is_started_again_whatever_its_exit_code_is(tmp_path: Path) -> None:
    """Python ends with the code of a refusal, too, if memory is too short to import a module."""
    done = launched(tmp_path, "fuse.launch.py", fuse_node=f"70 1 {INTERRUPT}")
    assert len(done.started) == 3, done.output
    assert "cannot start" not in done.output


@needs_launch
@pytest.mark.parametrize(
    ("file", "argument", "expected"),
    [
        ("fuse.launch.py", "params_file:=none.yaml", "params_file is 'none.yaml'"),
        ("navigation.launch.py", "ground_params_file:=none.yaml", "ground_params_file is 'none"),
        ("fuse.launch.py", "fastdds_profile:=none.xml", "fastdds_profile is 'none.xml'"),
        ("fuse.launch.py", "autostart:=maybe", "autostart is 'maybe'"),
        ("fuse.launch.py", "threads:=two", "threads is 'two'"),
        ("cameras.launch.py", "cameras:=a,a", "cameras is 'a,a'"),
        ("cameras.launch.py", "cameras:=a,/r/a namespace:=r", "cameras is 'a,/r/a'"),
        ("cameras.launch.py", "cameras:=a separate:=no", "separate is 'no'"),
        ("cameras.launch.py", "cameras:=a,b image:=/a/image", "image is '/a/image', one topic"),
    ],
)
def test_a_wrong_argument_ends_the_launch(
    tmp_path: Path, file: str, argument: str, expected: str
) -> None:
    done = launched(tmp_path, file, *argument.split())
    assert done.code == 1, done.output
    assert expected in done.output
    assert not done.started
