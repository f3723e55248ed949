# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Draws the newest result of every device: `python benchmarks/plot.py [FOLDER] [PICTURE]`.

Without arguments it reads this folder and writes docs/benchmark.png, which docs/results.md shows.
Needs matplotlib, which comes with the training package.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from magicfuse_ros.bench.report import BenchReport

HERE = Path(__file__).resolve().parent
COLORS = {"fp32": "#4878a8", "fp16": "#6a9f58", "int8": "#e07b39"}


def main(folder: Path, picture: Path) -> None:
    """Draw one panel per device."""
    reports = newest(folder)
    if not reports:
        sys.exit(f"'{folder}' holds no result; expected DEVICE/DATE.json, see README.md there")
    bars = [len(report.results) for report in reports.values()]
    figure = Figure(figsize=(8, sum(0.34 * n + 1.0 for n in bars)), layout="constrained")
    panels = figure.subplots(len(reports), squeeze=False, height_ratios=bars)
    for axes, report in zip(panels[:, 0], reports.values(), strict=True):
        draw(axes, report)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    print(f"{picture} drawn from {len(reports)} results")


def newest(folder: Path) -> dict[str, BenchReport]:
    """Return the latest report of every device, of those that compare the most combinations."""
    found: dict[str, BenchReport] = {}
    for path in sorted(folder.glob("*/*.json")):  # date strings sort in time order
        report = BenchReport.model_validate_json(path.read_bytes())
        device = path.parent.name
        if device not in found or len(report.results) >= len(found[device].results):
            found[device] = report
    return found


def draw(axes: Axes, report: BenchReport) -> None:
    """Draw one device's frames per second, next to their share of the convolution peak."""
    machine = report.machine
    for row, r in enumerate(report.results):
        axes.barh(row, r.fps, color=COLORS.get(r.precision, "gray"))
        note = f" {r.fps:.1f} fps, {r.median_ms:.0f} ms"
        if r.efficiency is not None:
            note += f", {100 * r.efficiency:.0f} % of peak"
        axes.text(r.fps, row, note, va="center", fontsize=8)
    names = [
        f"{r.backend} {r.precision}, {r.width}x{r.height}, K = {r.steps}" for r in report.results
    ]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(r.fps for r in report.results))
    axes.set_xlabel("frames a second", fontsize=8)
    device = f"{machine.cpu}, {machine.cores} cores"
    if machine.conv_peak_gflops is not None:
        device += f", float32 convolution peak {machine.conv_peak_gflops:.0f} GFLOP/s"
    if machine.gpu is not None:
        device += f"; {machine.gpu.name}, {machine.gpu.power_mode}"
    axes.set_title(
        f"{device}; {report.bundle}, {report.gflop_per_frame:.1f} GFLOP, {report.created}",
        fontsize=9,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else HERE,
        Path(sys.argv[2]) if len(sys.argv) > 2 else HERE.parent / "docs" / "benchmark.png",
    )
