# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The plots of an evaluation, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")  # there may be no display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from magicfuse_training.metrics.bootstrap import Figure, is_known
from magicfuse_training.metrics.images import HIGHEST_DB
from magicfuse_training.metrics.table import CONDITIONS, value_at

_COLORS = dict(zip(CONDITIONS, ("C0", "C7", "C8", "C9", "C1", "C4"), strict=True))
# Title and lines of each panel: a line's path in the scores of a condition, and its name.
_Lines = tuple[tuple[tuple[str, ...], str], ...]
_PANELS: tuple[tuple[str, _Lines], ...] = (
    (
        "PSNR to the clean frame, dB",
        (
            (("psnr_input_db",), "input"),
            (("psnr_restored_db",), "restored"),
            (("psnr_mag_image_db",), "MagImg"),
        ),
    ),
    ("SSIM to the clean frame", ((("ssim_input",), "input"), (("ssim_restored",), "restored"))),
    ("mIoU, %", ((("miou_percent",), "mask"),)),
    ("right group, %", ((("right_group_percent",), "mask"),)),
    ("calibration error, %", ((("ece_percent",), "confidence"),)),
    ("light on people", ((("light_precision",), "precision"), (("light_recall",), "recall"))),
    (
        "people in boxes",
        (
            (("people", "person_boxes_found_percent"), "boxes found, %"),
            (("people", "pedestrian_pixels_in_person_box_percent"), "pixels in a box, %"),
        ),
    ),
    (
        "correlation with the real thermal image",
        (
            (("thermal", "correlation_estimate"), "estimate"),
            (("thermal", "correlation_gray_visible"), "gray visible"),
        ),
    ),
)
ROW_METRICS = ("EN", "SSIM", "MI", "Qabf", "PSNR", "VIF", "person contrast")


def plot_conditions(scores: dict[str, Any]) -> bytes | None:
    """Draw the scores of a set over the conditions, one panel per kind; None if there are none."""
    there = [c for c in CONDITIONS if c in scores]
    shown = [
        (title, lines)
        for title, lines in _PANELS
        if any(is_known(value_at(scores[c], keys)) for c in there for keys, _ in lines)
    ]
    if not shown:
        return None
    canvas, axes = grid(len(shown), 4)
    for axis, (title, lines) in zip(axes, shown, strict=False):
        for number, (keys, label) in enumerate(lines):
            points = [(i, value_at(scores[c], keys)) for i, c in enumerate(there)]
            known = [
                (i + 0.12 * (number - (len(lines) - 1) / 2), f)
                for i, f in points
                if is_known(f) and f.value != HIGHEST_DB  # PSNR of an identical frame
            ]
            errorbars(axis, known, label, f"C{number}")
        axis.set_xticks(range(len(there)), there)
        axis.set_xlim(-0.5, len(there) - 0.5)
        axis.set_title(title, size=10)
        if len(lines) > 1:
            axis.legend(fontsize=8)
    return png(canvas)


def plot_reliability(scores: dict[str, Any]) -> bytes | None:
    """Draw how often the mask is right over its confidence, a line per condition; None if empty.

    The area of a dot is the share of the pixels in its bin.
    """
    there = [c for c in CONDITIONS if "reliability" in scores.get(c, {})]
    if not there:
        return None
    canvas, (axis,) = grid(1, 1, height=4.5)
    axis.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    for condition in there:
        bins = scores[condition]["reliability"]
        pixels, x, y = (np.array(bins[k], float) for k in ("pixels", "confidence", "right"))
        known = pixels > 0
        error = scores[condition]["ece_percent"].value
        color = _COLORS[condition]
        axis.plot(x[known], y[known], color=color, label=f"{condition}: error {error:.1f} %")
        size = 300 * pixels[known] / pixels.sum()
        axis.scatter(x[known], y[known], size, color=color, alpha=0.7)
    axis.set_xlabel("confidence")
    axis.set_ylabel("share of right pixels")
    axis.legend(fontsize=8)
    return png(canvas)


def plot_classes(scores: dict[str, Any]) -> bytes | None:
    """Draw the IoU of the classes, one dot per condition; None if there are none."""
    there = [c for c in CONDITIONS if "iou_percent" in scores.get(c, {})]
    if not there:
        return None
    names = list(dict.fromkeys(n for c in there for n in scores[c]["iou_percent"]))
    canvas, (axis,) = grid(1, 1, height=1.5 + 0.28 * len(names))
    for number, condition in enumerate(there):
        values = scores[condition]["iou_percent"]
        rows = [
            i + 0.1 * (number - (len(there) - 1) / 2) for i, n in enumerate(names) if n in values
        ]
        shown = [values[n] for n in names if n in values]
        axis.plot(shown, rows, "o", color=_COLORS[condition], label=condition, markersize=5)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("IoU, %")
    canvas.legend(loc="outside right upper", fontsize=8)
    return png(canvas)


def plot_rows(scores: dict[str, Any]) -> bytes | None:
    """Draw images side by side (`rows.Rows`): a panel per metric, a dot per condition; or None."""
    images = {c: scores[c]["images"] for c in CONDITIONS if "images" in scores.get(c, {})}
    rows = [row for some in images.values() for row in some.values()]
    shown = [m for m in ROW_METRICS if any(is_known(row.get(m)) for row in rows)]
    if not shown:
        return None
    names = list(
        dict.fromkeys(n for some in images.values() for n, row in some.items() if {*shown} & {*row})
    )
    canvas, axes = grid(len(shown), 4, height=1.2 + 0.4 * len(names))
    for number, (axis, metric) in enumerate(zip(axes, shown, strict=False)):
        for place, (condition, some) in enumerate(images.items()):
            offset = 0.11 * (place - (len(images) - 1) / 2)
            points = [
                (i + offset, some[name][metric])
                for i, name in enumerate(names)
                if is_known(some.get(name, {}).get(metric))
            ]
            errorbars(axis, points, condition, _COLORS[condition], sideways=True)
        axis.set_yticks(range(len(names)), names if number % 4 == 0 else [""] * len(names))
        axis.invert_yaxis()
        axis.set_title(metric, size=10)
    lines, labels = axes[0].get_legend_handles_labels()
    canvas.legend(lines, labels, loc="outside lower center", ncols=len(images), fontsize=8)
    return png(canvas)


def errorbars(
    axis: Axes,
    points: Sequence[tuple[float, Figure]],
    label: str,
    color: str,
    sideways: bool = False,
    mark: str = "o",
) -> None:
    """Draw scores and their intervals at given positions; with `sideways`, positions are rows."""
    places, values = [p[0] for p in points], [p[1].value for p in points]
    # With few frames, an interval may not contain its value.
    ends = [[max(f.value - f.low, 0.0) for _, f in points]]
    ends += [[max(f.high - f.value, 0.0) for _, f in points]]
    if sideways:
        axis.errorbar(values, places, xerr=ends, fmt=mark, ms=4, label=label, color=color)
    else:
        axis.errorbar(places, values, yerr=ends, fmt=mark, label=label, color=color, capsize=2)


def grid(count: int, columns: int, height: float = 3.0) -> tuple[Canvas, list[Axes]]:
    """Return a figure of `count` panels, in rows of `columns`, each `height` inches high."""
    columns = min(count, columns)
    rows = -(-count // columns)
    width = 3.4 * columns if columns > 1 else 6.5
    canvas, axes = plt.subplots(
        rows, columns, figsize=(width, height * rows), layout="constrained", squeeze=False
    )
    flat = list(axes.ravel())
    for axis in flat:
        axis.grid(alpha=0.3)
    for axis in flat[count:]:
        axis.axis("off")
    return canvas, flat[:count]


def png(canvas: Canvas) -> bytes:
    """Return a figure as PNG, and close it."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=110)
    plt.close(canvas)
    return buffer.getvalue()
