# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes the table of faults in docs/faults.md from a run of the tests marked with `fault`.

python test/fault_table.py          runs them and writes the table if all pass
python test/fault_table.py --check  runs nothing; fails if the table does not match the tests

A test is marked with `@pytest.mark.fault(fault, what the node does)`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "faults.md"
BEGIN = "<!-- faults: written by python test/fault_table.py -->"
END = "<!-- /faults -->"


class Collector:
    """A pytest plugin that collects the marked tests.

    Attributes:
        rows: (fault, what the node does) and its tests, in the order of the tests.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[str]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in sorted(
            session.items, key=lambda item: item.path
        ):  # the suite has its own order
            for mark in item.iter_markers("fault"):
                name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
                tests = self.rows.setdefault(mark.args, [])
                if name not in tests:
                    tests.append(name)

    def table(self) -> str:
        """Return the table in Markdown."""
        lines = ["| fault | what the node does | test |", "|---|---|---|"]
        for (fault, answer), tests in self.rows.items():
            lines.append(f"| {fault} | {answer} | {', '.join(f'`{test}`' for test in tests)} |")
        return "\n".join(lines) + "\n"


def with_table(page: str, table: str) -> str:
    """Return a page with the table inserted between its two markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}{END}{after}"


def arguments(check: bool) -> Iterator[str]:
    """Yield the arguments of pytest."""
    yield from ("-m", "fault", "-q", "-p", "no:cacheprovider", str(ROOT / "test"))
    yield f"--ignore={ROOT / 'test' / 'training'}"
    if check:
        yield "--collect-only"


def main(check: bool) -> int:
    """Return the exit code: 0 if the tests pass and, with `check`, the table matches them."""
    collector = Collector()
    if code := pytest.main(list(arguments(check)), plugins=[collector]):
        return int(code)
    page = PAGE.read_text(encoding="utf-8")
    written = with_table(page, collector.table())
    if not check:
        PAGE.write_text(written, encoding="utf-8")
    elif page != written:
        print("docs/faults.md: the table of faults is not that of the tests; run make faults")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
