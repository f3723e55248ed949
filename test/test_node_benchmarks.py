"""The benchmarks of the node: which limits they call kept or exceeded, and the docs' tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import node_results  # noqa: E402
import rates  # noqa: E402


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
