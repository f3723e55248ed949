# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What ROS's tools need of the package."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

import magicfuse_ros
from magicfuse_ros import start
from slow_import import interrupted_import, with_modules

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("config", "launch", "magicfuse_ros", "resource", "package.xml", "setup.cfg", "setup.py")
NODES = ("fuse_node", "fuse_cameras", "ground_cloud_node", "play_node", "replay_node")
EXECUTABLES = ("magicfuse", *NODES)


def test_versions_agree() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.findtext("name") == "magicfuse_ros"
    assert package.findtext("version") == magicfuse_ros.__version__
    setup = (ROOT / "setup.py").read_text()
    assert f'version="{magicfuse_ros.__version__}"' in setup


def test_every_python_file_states_copyright_and_licence() -> None:
    """The header is that of this file, in the form that ament_copyright recognises."""
    header = Path(__file__).read_text(encoding="utf-8").partition("\n\n")[0]
    assert "SPDX-License-Identifier: Apache-2.0\n" in header
    folders = ("benchmarks", "launch", "magicfuse_ros", "test", "training")
    files = [ROOT / "setup.py", *(f for folder in folders for f in (ROOT / folder).rglob("*.py"))]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    without = [
        str(file.relative_to(ROOT))
        for file, text in texts.items()
        if text and not re.sub(r"^#!.*\n", "", text).startswith(f"{header}\n")
    ]
    assert not without


# Imported names that differ from those of the packages that bring them.
PACKAGES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "ruamel": "ruamel.yaml",
    "tf2_ros": "tf2_ros_py",
    # Zstandard comes with rosbags, as its lower bound in setup.py says.
    "backports": "rosbags",
    "compression": "rosbags",
}


def test_everything_that_is_imported_is_declared() -> None:
    """What another dependency brings today may be missing after its next release."""
    declared = set(re.findall(r"[\"']([\w.-]+)[;>\"]", (ROOT / "setup.py").read_text()))
    package = ElementTree.parse(ROOT / "package.xml")
    declared |= {str(depend.text) for depend in package.iter("exec_depend")}
    imported = set()
    for file in (ROOT / "magicfuse_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"magicfuse_ros"}
    assert {PACKAGES.get(name, name) for name in others} <= declared


def test_no_wheel_of_ros_is_a_dependency() -> None:
    # they would shadow an installed ROS
    assert not re.search(r'"ros-', (ROOT / "setup.py").read_text())
    assert "ros-" not in (ROOT / "requirements" / "vehicle.txt").read_text()


def executable(name: str) -> str:
    """Return the program of an executable, as setup.py names it and pip writes it."""
    setup = (ROOT / "setup.py").read_text()
    module, function = re.findall(rf'"{name} = ([\w.]+):(\w+)"', setup)[0]
    if "node" in name or "fuse_" in name:
        pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


@pytest.mark.parametrize("name", EXECUTABLES)
def test_ctrl_c_during_the_imports_leaves_no_traceback(tmp_path: Path, name: str) -> None:
    ended = interrupted_import([sys.executable, "-c", executable(name)], tmp_path, "numpy")
    assert ended == (-signal.SIGINT, "")


@pytest.mark.parametrize("name", EXECUTABLES)
def test_a_missing_library_is_one_line_that_names_the_python(tmp_path: Path, name: str) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('libz.so:\\n no such file')\n")
    command = [sys.executable, "-c", executable(name)]
    done = subprocess.run(command, env=with_modules(tmp_path), capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: libz.so: no such file; ") and sys.executable in line
    assert done.returncode == 1  # at their first start, the launch files then give up


def test_a_module_of_ours_that_is_missing_is_a_defect() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ModuleNotFoundError):
        start._start("magicfuse_ros.missing", "main")
    assert signal.getsignal(signal.SIGINT) is before


def test_the_dds_profile_is_xml() -> None:
    profile = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot()
    name = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    assert profile.findtext(".//dds:useBuiltinTransports", namespaces=name) == "false"


@pytest.mark.skipif(not importlib.util.find_spec("colcon_ros"), reason="colcon is not installed")
def test_colcon_builds_what_launch_starts(tmp_path: Path, tiny_bundle: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from ros_rig import Rig

    source = tmp_path / "src" / "magicfuse_ros"
    source.mkdir(parents=True)
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    shutil.copytree(tiny_bundle, source / "engines" / "nano")
    colcon = "from colcon_core.command import main; main()"
    built = subprocess.run(
        [sys.executable, "-c", colcon, "--log-base", "log", "build"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stdout + built.stderr

    prefix = tmp_path / "install" / "magicfuse_ros"
    share = prefix / "share" / "magicfuse_ros"
    launch_files = [f"launch/{path.name}" for path in (ROOT / "launch").glob("*.py")]
    assert len(launch_files) >= 5
    for file in ("package.xml", *launch_files, "config/fuse.yaml", "config/fastdds.xml"):
        assert (share / file).read_bytes() == (ROOT / file).read_bytes()
    assert (prefix / "share/ament_index/resource_index/packages/magicfuse_ros").is_file()
    assert yaml.safe_load((share / "config/fuse.yaml").read_text())
    (modules,) = prefix.glob("lib/python*/site-packages")
    environment = {"PYTHONPATH": str(modules), "AMENT_PREFIX_PATH": str(prefix)}
    command = (str(prefix / "lib" / "magicfuse_ros" / "fuse_node"),)
    for name in EXECUTABLES:
        assert os.access(prefix / "lib" / "magicfuse_ros" / name, os.X_OK)  # ros2 run's place
    with Rig(tmp_path, environment, command) as rig:
        rig.activate()
        assert rig.next_diagnostics()["bundle"] == str(share / "engines" / "nano")
