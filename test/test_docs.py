# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The pages in docs/ and the README build, and the targets of their links exist."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]


@pytest.mark.skipif(not find_spec("mkdocs"), reason="mkdocs is not installed")
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= {path.parent.name for path in tmp_path.glob("*/index.html")}


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files(text: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", text.read_text(encoding="utf-8"))
    there = [link for link in links if not link.startswith("http")]
    assert there and all((ROOT / link).exists() for link in there), there


def test_a_shell_can_read_every_block_of_commands() -> None:
    pages = [*TEXTS, *ROOT.glob("docs/*.md"), *ROOT.glob("[a-z]*/README.md")]
    blocks = {
        (page.name, block): subprocess.run(["bash", "-n"], input=block, text=True, check=False)
        for page in pages
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    }
    assert len(blocks) > 30
    assert not [where for where, done in blocks.items() if done.returncode]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 9_000
