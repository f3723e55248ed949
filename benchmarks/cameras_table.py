# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The tables of docs/cameras.md: the newest figures of cameras.py on each kind of machine.

python benchmarks/cameras_table.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "cameras.md"
BEGIN = "<!-- cameras: written by python benchmarks/cameras_table.py -->"
END = "<!-- /cameras -->"

FUSED_PERCENT = 98.0
# By cameras in one process: age p95 in frame times, and memory in MB.
LIMITS = {4: (6.0, 650.0), 2: (4.0, 550.0)}
CALM_FUSED_PERCENT = 98.0  # of each camera that does not flood


def _percent(each: Sequence[dict[str, Any]]) -> float:
    fused, sent = (sum(int(one[name]) for one in each) for name in ("fused", "sent"))
    return 100 * fused / sent


def _together(row: dict[str, Any]) -> dict[str, float]:
    """Return the figures of equal cameras: ages and rate are means, the rest is of all."""
    each = row["each"]
    p95 = fmean(one["age_ms"]["p95"] for one in each)
    return {
        "cameras": len(each),
        "frame_ms": row["frame_ms"],
        "rate": fmean(one["rate"] for one in each),
        "fused_percent": _percent(each),
        "age_p50_ms": fmean(one["age_ms"]["median"] for one in each),
        "age_p95_ms": p95,
        "age_p95_frames": p95 / row["frame_ms"],
        "cores": row["cores"],
        "rss_mb": row["rss_mb"],
    }


def _fairness(row: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a flood, and the worst of those beside it."""
    flood, *calm = row["each"]
    return {
        "frame_ms": row["frame_ms"],
        "flood_rate": flood["rate"],
        "flood_fused_percent": _percent([flood]),
        "calm_rate": min(one["rate"] for one in calm),
        "calm_fused_percent": min(_percent([one]) for one in calm),
        "calm_age_p95_frames": max(one["age_ms"]["p95"] for one in calm) / row["frame_ms"],
    }


def medians(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the medians of the rounds for each count of cameras and arrangement."""
    same: dict[tuple[str, int], list[dict[str, float]]] = {}
    for row in rows:
        figures: Callable[[dict[str, Any]], dict[str, float]]
        figures = _fairness if row["what"] == "fairness" else _together
        same.setdefault((row["what"], len(row["each"])), []).append(figures(row))
    return [
        {"what": what, **{name: median(one[name] for one in found) for name in found[0]}}
        for (what, _), found in same.items()
    ]


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians, and which limits they keep."""
    found = medians(rows)
    checks: dict[str, bool] = {}
    for row in found:
        if row["what"] == "one process":
            count = int(row["cameras"])
            frames, rss_mb = LIMITS[count]
            checks[f"{count} cameras: share fused"] = row["fused_percent"] >= FUSED_PERCENT
            checks[f"{count} cameras: age"] = row["age_p95_frames"] <= frames
            checks[f"{count} cameras: memory"] = row["rss_mb"] <= rss_mb
        elif row["what"] == "fairness":
            checks["fairness"] = row["calm_fused_percent"] >= CALM_FUSED_PERCENT
    return {"passed": all(checks.values()), "checks": checks, "medians": found}


def section(result: dict[str, Any]) -> str:
    """Return the tables of one run, in Markdown."""
    machine = result["machine"]
    lines = [
        f"{machine['cores']} cores of {machine['cpu']}, `{result['bundle']}` in "
        f"{result['precision']} on {result['backend']}, {result['created']}; medians of "
        f"{result['rounds']} rounds, limits in brackets.",
        "",
        "| cameras | processes | frame, ms | images a second, each | fused | age p50 / p95, ms "
        "| age p95, frame times | cores | memory of all, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["medians"]:
        if row["what"] == "fairness":
            continue
        count = int(row["cameras"])
        one = row["what"] == "one process"
        frames, rss_mb = LIMITS[count]
        limits = (f" ({FUSED_PERCENT:.0f})", f" ({frames:.0f})", f" ({rss_mb:.0f})")
        fused, age, memory = limits if one else ("", "", "")
        lines.append(
            f"| {count} | {1 if one else count} | {row['frame_ms']:.1f} | {row['rate']:.1f} "
            f"| {row['fused_percent']:.1f} %{fused} "
            f"| {row['age_p50_ms']:.0f} / {row['age_p95_ms']:.0f} "
            f"| {row['age_p95_frames']:.1f}{age} | {row['cores']:.2f} "
            f"| {row['rss_mb']:.0f}{memory} |"
        )
    lines += ["", "| one process, a flood beside 3 cameras | images a second | fused | age p95 |"]
    lines += ["|---|---|---|---|"]
    for row in result["medians"]:
        if row["what"] != "fairness":
            continue
        flood = row["flood_rate"] * row["flood_fused_percent"] / 100
        lines += [
            f"| the flood | {row['flood_rate']:.0f} | {flood:.1f} a second | |",
            f"| the worst of the others | {row['calm_rate']:.1f} "
            f"| {row['calm_fused_percent']:.1f} % ({CALM_FUSED_PERCENT:.0f}) "
            f"| {row['calm_age_p95_frames']:.1f} frame times of {row['frame_ms']:.1f} ms |",
        ]
    return "\n".join(lines) + "\n"


def with_section(page: str, text: str) -> str:
    """Return a page with the text between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}{END}{after}"


def newest() -> dict[str, dict[str, Any]]:
    """Return the newest figures by kind of machine, the folder's name."""
    files = sorted(HERE.glob("*/node/cameras-*.json"))  # by folder, then by date
    return {f.parent.parent.name: json.loads(f.read_text(encoding="utf-8")) for f in files}


def sections() -> str:
    """Return the text between the markers of the page."""
    return "\n".join(f"`benchmarks/{name}`: {section(result)}" for name, result in newest().items())


if __name__ == "__main__":
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), sections()), encoding="utf-8")
