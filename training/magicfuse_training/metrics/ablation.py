# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Presents an ablation study: a table, and a plot next to the tau sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # there may be no display
from matplotlib import pyplot as plt

from magicfuse_ros.output_files import write_text
from magicfuse_training.metrics.ablation_scores import IMAGE_METRICS, MASK_METRICS

METRICS = (*IMAGE_METRICS, *MASK_METRICS)
_UNITS = {"PSNR dark": "dB", "mIoU dark": "%"}
_BARS = ("PSNR dark", "person contrast", "VIF", "mIoU dark")
_LINES = ("PSNR dark", "person contrast", "mIoU dark")


def write_table(result: dict[str, Any], path: Path) -> None:
    """Write models and tau sweep as Markdown tables."""
    steps, minutes = result["steps"]["full"]["mkf"], result["minutes"]
    budget = f"{steps} steps" if minutes is None else f"{minutes:g} minutes"
    crops = steps * result["batch"]
    lines = [
        f"Preset `{result['preset']}`, all from `{result['start']}`, {budget} a stage and model "
        f"on {result['device']} ({crops:,} crops for the full model), "
        f"K = {result['k']}. Images on MSRS dev, against the visible and the thermal image; "
        f"`PSNR dark` and masks on CamVid val; one frame in {result['every']}.",
        "",
    ]
    lines += _table(["model", "paper", "lacks"], result["models"], METRICS)
    lines += ["", "The full model at other tau:", ""]
    lines += _table(["tau"], result["tau"], METRICS)
    if result["k"] == 1:
        lines += [
            "",
            "At K = 1 the paper's Model III, which fuses after the diffusion, is the full model, "
            "and masks do not depend on tau.",
        ]
    write_text(path, "\n".join(lines) + "\n")


def _table(heading: list[str], rows: dict[str, Any], metrics: tuple[str, ...]) -> list[str]:
    lines = [[*heading, *metrics], ["---"] * (len(heading) + len(metrics))]
    for name, row in rows.items():
        values = ["" if row[m] is None else f"{row[m]:.3g}" for m in metrics]
        lines.append([name, *[row[key] for key in heading[1:]], *values])
    return [f"| {' | '.join(line)} |" for line in lines]


def draw_plot(result: dict[str, Any], path: Path) -> None:
    """Draw a bar for each model and a line over tau, one column per metric, as PNG."""
    figure, axes = plt.subplots(2, len(_BARS), figsize=(14, 9), layout="constrained")
    models, sweep = result["models"], result["tau"]
    for axis, metric in zip(axes[0], _BARS, strict=True):
        values = [models[name][metric] for name in models]
        bars = axis.bar(list(models), [v or 0.0 for v in values], color="0.65")
        bars[0].set_color("tab:orange")
        axis.tick_params("x", rotation=90)
        digits = 1 if max(abs(v or 0) for v in values) > 2 else 2  # labels must not touch
        axis.bar_label(bars, ["none" if v is None else f"{v:.{digits}f}" for v in values], size=8)
        axis.set_title(_titled(metric))
        axis.margins(y=0.15)
    for axis, metric in zip(axes[1], _LINES, strict=False):
        values = [sweep[tau][metric] or 0.0 for tau in sweep]
        axis.plot([float(tau) for tau in sweep], values, "o-", color="tab:orange")
        axis.set_title(_titled(metric))
        axis.set_xlabel("tau")
        axis.grid(alpha=0.3)
        middle, reach = (max(values) + min(values)) / 2, 0.05 * max(map(abs, values))
        reach = max(reach, (max(values) - min(values)) * 0.6)
        reach = reach or 1.0
        axis.set_ylim(middle - reach, middle + reach)  # noise must not look like a trend
    axes[0, 0].set_ylabel("model")
    axes[1, 0].set_ylabel("full model")
    axes[1, -1].axis("off")
    lacks = "\n".join(f"{name} lacks {row['lacks']}" for name, row in models.items())
    axes[1, -1].text(0, 0.9, lacks, va="top", size=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _titled(metric: str) -> str:
    unit = _UNITS.get(metric)
    return f"{metric} ({unit})" if unit else metric
