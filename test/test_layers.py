# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The packages are layered: no folder imports another one that imports it back."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [ROOT / "magicfuse_ros", ROOT / "training" / "magicfuse_training"]


def imported(file: Path) -> list[str]:
    """Return the modules that a file imports when it is imported itself."""
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return found


def folders(package: Path) -> dict[str, set[str]]:
    """Return what each folder of a package, and each module beside them, imports of it."""
    edges: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        unit = file.relative_to(package).parts[0].removesuffix(".py")
        names = (name.split(".") for name in imported(file))
        theirs = {name[1] for name in names if name[0] == package.name and len(name) > 1}
        edges.setdefault(unit, set()).update(theirs - {unit, "__version__"})
    return edges


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_folder_imports_another_that_imports_it(package: Path) -> None:
    circle: list[str] = []
    try:
        TopologicalSorter(folders(package)).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
    assert not circle, " imports ".join(circle)


def test_only_the_nodes_import_rclpy() -> None:
    """The core runs without ROS."""
    package = PACKAGES[0]
    using = {
        file.relative_to(package).parts[0]
        for file in package.rglob("*.py")
        if re.search(r"^\s*(from|import) rclpy\b", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert using == {"ros"}
