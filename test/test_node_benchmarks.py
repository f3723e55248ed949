# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The benchmarks of the node: which limits they call kept or exceeded, and the docs' tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import cameras_table  # noqa: E402
import node_results  # noqa: E402
import rates  # noqa: E402
import steady_camera  # noqa: E402


def frames(
    waited_ms: Sequence[float], fused: list[int], sent: int = 10, cost_ms: float = 45.0
) -> rates.Frames:
    """Return a phase with 10 images a second, and a fuser of 40 ms."""
    times = np.arange(sent) / 10
    cost = np.full(len(fused), cost_ms)
    return rates.Frames(
        times, times[fused], np.array(waited_ms) + cost, cost, np.full(len(fused), 40.0)
    )


def test_a_frame_is_outdated_once_a_newer_image_is_out() -> None:
    phase = frames(waited_ms=[5, 99, 130, 250, 7], fused=[0, 1, 3, 5, 9])
    assert phase.outdated_ms() == pytest.approx([0, 0, 30, 150, 0])


GOOD = frames([2] * 9 + [4], list(range(10)))  # under way for up to 4 ms


@pytest.mark.parametrize(
    ("below", "above", "broken"),
    [
        (GOOD, frames([2, 30, 2], [0, 3, 9]), None),
        (frames([2] * 9, list(range(9))), GOOD, "nothing lost below"),
        (GOOD, frames([110] + [2] * 29, list(range(30)), sent=30), "the newest is fused above"),
        (GOOD, frames([2, 2, 2], [0, 3, 9], cost_ms=79), "age above"),
    ],
)
def test_what_is_kept_and_broken(
    below: rates.Frames, above: rates.Frames, broken: str | None
) -> None:
    result = rates.judge(GOOD, below, above, (10.0, 10.0))
    assert [name for name, kept in result["checks"].items() if not kept] == (
        [broken] if broken else []
    )
    assert result["passed"] == (broken is None)


def test_the_page_says_what_the_newest_results_say() -> None:
    page = (ROOT / "docs" / "real_time.md").read_text(encoding="utf-8")
    found = re.search(re.escape(node_results.BEGIN).replace(r"\{device\}", "(.+)"), page)
    assert found is not None
    text = node_results.section(node_results.newest(found[1]))
    assert page == node_results.with_section(page, found[1], text)


def camera_row(
    what: str, frame_ms: float, *each: tuple[int, int, float], rss_mb: float = 500
) -> Any:
    """Return a measurement; a camera is (images sent in 10 s, of them fused, age p95 in ms)."""
    cameras = [
        {"rate": sent / 10, "sent": sent, "fused": fused, "age_ms": {"median": 9.0, "p95": p95}}
        for sent, fused, p95 in each
    ]
    return {"what": what, "frame_ms": frame_ms, "cores": 1.5, "rss_mb": rss_mb, "each": cameras}


def test_the_ages_of_cameras_are_in_frame_times_of_their_own_round() -> None:
    rows = [
        camera_row("one process", frame_ms, (100, 100, p95), (300, 290, p95))
        for frame_ms, p95 in ((10.0, 50.0), (20.0, 40.0), (40.0, 160.0))
    ]
    (found,) = cameras_table.medians(rows)
    assert found["fused_percent"] == pytest.approx(97.5)  # of all images
    assert found["rate"] == 20
    assert found["age_p95_frames"] == 4.0  # 5, 2 and 4; the medians' quotient would be 2.5


@pytest.mark.parametrize(
    ("rows", "broken"),
    [
        ([camera_row("one process", 10, *[(100, 98, 60.0)] * 4, rss_mb=650)], []),
        ([camera_row("one process", 10, *[(100, 98, 41.0)] * 2)], ["2 cameras: age"]),
        ([camera_row("one process", 10, *[(100, 97, 9.0)] * 4)], ["4 cameras: share fused"]),
        ([camera_row("one process", 10, *[(100, 99, 9.0)] * 4, rss_mb=651)], ["4 cameras: memory"]),
        ([camera_row("separate", 10, *[(100, 50, 900.0)] * 4, rss_mb=1740)], []),
        ([camera_row("fairness", 10, (2000, 300, 900.0), *[(100, 99, 60.0)] * 3)], []),
        (
            [camera_row("fairness", 10, (2000, 300, 9.0), *[(100, 100, 9.0)] * 2, (100, 97, 9.0))],
            ["fairness"],
        ),
    ],
)
def test_the_limits_of_several_cameras(rows: list[Any], broken: list[str]) -> None:
    judged = cameras_table.judge(rows)
    assert [name for name, kept in judged["checks"].items() if not kept] == broken
    assert judged["passed"] == (not broken)


def test_the_table_of_cameras_has_all_figures() -> None:
    rows = [
        camera_row("separate", 20, *[(100, 98, 60.0)] * 4, rss_mb=1740),
        camera_row("one process", 20, *[(100, 98, 60.0)] * 4),
        camera_row("fairness", 20, (2000, 150, 900.0), *[(100, 99, 60.0)] * 3),
    ]
    machine = {"cores": 2, "cpu": "a CPU"}
    head: dict[str, Any] = {
        "machine": machine,
        "bundle": "nano",
        "backend": "openvino",
        "precision": "int8",
    }
    head |= {"created": "2030-01-01", "rounds": 1}
    text = cameras_table.section({**head, **cameras_table.judge(rows)})
    for line in (
        "| 4 | 4 | 20.0 | 10.0 | 98.0 % | 9 / 60 | 3.0 | 1.50 | 1740 |",
        "| 4 | 1 | 20.0 | 10.0 | 98.0 % (98) | 9 / 60 | 3.0 (6) | 1.50 | 500 (650) |",
        "| the flood | 200 | 15.0 a second | |",
        "| the worst of the others | 10.0 | 99.0 % (98) | 3.0 frame times of 20.0 ms |",
    ):
        assert line in text, text
    page = cameras_table.PAGE.read_text(encoding="utf-8")
    assert text in cameras_table.with_section(page, text)


def test_the_page_says_what_the_newest_results_of_cameras_say() -> None:
    if not (found := cameras_table.newest()):
        pytest.skip("no results yet")
    page = cameras_table.PAGE.read_text(encoding="utf-8")
    for result in found.values():
        assert cameras_table.section(result) in page
    assert page == cameras_table.with_section(page, cameras_table.sections())


NOTHING_LOST = dict.fromkeys((*steady_camera.LOSSES, "twice_or_out_of_order"), 0) | {
    "sent": 1000,
    "received": 1000,
    "fused": 990,
    "dropped": 10,  # while the machine had no time for all
    "replaced_while_the_first_got_more": 2,
    "arrived": 990,
}


@pytest.mark.parametrize(
    "change",
    [
        {"lost": 1, "received": 999, "dropped": 9},
        {"refused": 1, "dropped": 9},
        {"failed": 1, "dropped": 9},
        {"reloads": 1},
        {"sent": 1001},
        {"arrived": 989},
        {"twice_or_out_of_order": 1},
        {"replaced_while_the_first_got_more": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_camera_beside_a_faulty_one_may_not_lose(change: dict[str, int]) -> None:
    assert steady_camera.nothing_lost(NOTHING_LOST)
    assert not steady_camera.nothing_lost(NOTHING_LOST | change)
