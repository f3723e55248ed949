# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Tables and plots of how far the thermal estimate generalises, for a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from magicfuse_training.metrics.plots import errorbars, grid, png
from magicfuse_training.metrics.table import ScoreTable, cell, markdown
from magicfuse_training.metrics.thermal_detail import PERCENTS, Part

START = "<!-- generalisation: written by magicfuse-train thermal -->"
END = "<!-- /generalisation -->"
RELATIONS = {
    "trained on": "trained on",
    "same set": "other frames of a set trained on",
    "unknown set": "of a set never seen",
    "not recorded": "not recorded",
}
BINS = (1, 30, 100, 1000)  # lower ends, in frame numbers
_TICKS = (10, 100, 1000)
_MARKS = {"trained on": "o", "same set": "s", "unknown set": "D", "not recorded": "x"}
_INTERVALS = (50, 90)  # percent
Parts = Mapping[str, Sequence[Part]]  # by bundle, the first is the one that is scored


def page(bundles: Parts, names: Sequence[str], pictures: Mapping[str, str]) -> str:
    """Return the section as Markdown.

    Args:
        bundles: the compared frames by bundle; the first bundle is shown in detail.
        names: its classes.
        pictures: file names of the plots by name, from `plots`.
    """
    own = next(iter(bundles.values()))
    parts = [
        "In brackets: the 95 % bootstrap interval over frames. Levels are gray levels of 255; the "
        "images of cameras with automatic gain were brought to MSRS's mean (27) and spread (20).",
        "### By set",
        _picture("Correlation and error by set", pictures["sets"]),
    ]
    for bundle, some in bundles.items():
        parts += [f"**{bundle}**", markdown(_by_set(some))]
    parts += [
        "*Frames*: what the bundle knows of them. *Gray*: correlation of the gray visible image. "
        "*Constant*: mean error of the best image of one level, chosen on these frames. *50 %, 90 "
        "%*: pixels inside of the stated intervals, %.",
        "### By class",
    ]
    if "classes" in pictures:
        parts += [_picture("Error and correlation by class", pictures["classes"])]
        for part in _labelled(own):
            parts += [f"**{part.title}**", markdown(_by_class(part, names))]
        parts += [
            "*Correlation*: of the estimate with the real image inside one class of one frame, "
            "after the class's means are subtracted. *Between classes*: correlation of the class "
            "means in a frame. *Bias*: estimate minus real image. Labels by day are pseudo labels; "
            "those at night are coarse and were drawn by eye."
        ]
    if "coverage" in pictures:
        parts += [
            "### The stated uncertainty",
            _picture("Content of the stated intervals", pictures["coverage"]),
        ]
    parts += ["### By scene, and by distance from training"]
    if "frames" in pictures:
        parts += [_picture("Correlation of each frame over its distance", pictures["frames"])]
    parts += [
        markdown(_by_scene(own)),
        markdown(_by_distance(own)),
        "*Distance*: from the number of the frame to the nearest one of the training, by day or at "
        "night; 0 is a training frame.",
    ]
    return "\n\n".join(parts)


def plots(bundles: Parts, names: Sequence[str]) -> dict[str, bytes]:
    """Return the plots as PNG, by name; those without content are left out."""
    own = next(iter(bundles.values()))
    found = {"sets": _plot_sets(bundles)}
    if any(any(part.distances) for part in own):
        found["frames"] = _plot_frames(own)
    if _labelled(own):
        found["classes"] = _plot_classes(_labelled(own), names)
    if any(part.inside() is not None for part in own):
        found["coverage"] = _plot_coverage(own)
    return found


def _labelled(parts: Sequence[Part]) -> list[Part]:
    """Return the held-out parts with labels."""
    return [
        part
        for part in parts
        if part.relation != "trained on" and any(f.classes.any() for f in part.frames)
    ]


def _by_set(parts: Sequence[Part]) -> ScoreTable:
    rows = []
    for part in parts:
        shares = [""] * len(_INTERVALS)
        if (inside := part.inside()) is not None:
            shares = [f"{100 * np.interp(p, PERCENTS, inside):.0f}" for p in _INTERVALS]
        rows.append(
            [
                part.title,
                RELATIONS[part.relation],
                str(len(part.frames)),
                cell(part.mean("correlation"), 2),
                cell(part.mean("correlation_visible"), 2),
                cell(part.mean("error"), 1),
                f"{part.constant_error():.1f}",
                *shares,
            ]
        )
    titles = ["set", "frames", "count", "correlation", "gray", "mean error", "constant"]
    return ScoreTable([*titles, *[f"{p} %" for p in _INTERVALS]], rows)


def _by_class(part: Part, names: Sequence[str]) -> ScoreTable:
    rows = []
    for i, name in enumerate(names):
        if (scores := part.by_class(i)) is None:
            continue
        decimals = {"pixels": 1, "error": 1, "bias": 1, "correlation": 2, "inside": 0}
        rows.append([name, *[cell(scores[key], n) for key, n in decimals.items()]])
    for name, figure in (("all, within", part.within()), ("between classes", part.between())):
        rows.append([name, "", "", "", cell(figure, 2), ""])
    return ScoreTable(
        ["class", "pixels, %", "mean error", "bias", "correlation", "in the 90 % interval, %"], rows
    )


def _by_scene(parts: Sequence[Part]) -> ScoreTable:
    rows = []
    for part in parts:
        order = sorted(part.frames, key=lambda frame: frame.correlation)
        shown = (order[0], order[len(order) // 2], order[-1])
        rows.append([part.title, *[f"{f.correlation:.2f} ({f.name})" for f in shown]])
    return ScoreTable(["correlation by frame", "lowest", "median", "highest"], rows)


def _by_distance(parts: Sequence[Part]) -> ScoreTable:
    """Return the scores of the frames in every bin of the distance."""
    titles = ["0", *[f"{a} to {b - 1}" for a, b in pairwise(BINS)], f"{BINS[-1]} and more"]
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for part in parts:
        for frame, distance in zip(part.frames, part.distances, strict=True):
            if distance is not None:
                title = titles[sum(distance >= lowest for lowest in BINS)]
                groups.setdefault((part.scene, title), []).append((frame.correlation, frame.error))
    rows = []
    for key, some in groups.items():
        correlation, error = np.mean(some, axis=0)
        rows.append([*key, str(len(some)), f"{correlation:.2f}", f"{error:.1f}"])
    return ScoreTable(["set", "distance", "count", "correlation", "mean error"], rows)


def _plot_sets(bundles: Parts) -> bytes:
    titles = list(dict.fromkeys(part.title for some in bundles.values() for part in some))
    canvas, axes = grid(2, 2, height=2 + 0.4 * len(titles))
    for number, (bundle, some) in enumerate(bundles.items()):
        places = [titles.index(part.title) + 0.16 * number for part in some]
        for axis, key in zip(axes, ("correlation", "error"), strict=True):
            for kind, mark in _MARKS.items():
                points = [
                    (place, part.mean(key))
                    for place, part in zip(places, some, strict=True)
                    if part.relation == kind
                ]
                if points:
                    errorbars(
                        axis, points, f"{bundle}: {RELATIONS[kind]}", f"C{number}", True, mark
                    )
    own = next(iter(bundles.values()))
    rows = [titles.index(part.title) - 0.16 for part in own]
    gray = [part.mean("correlation_visible").value for part in own]
    axes[0].plot(gray, rows, "|", color="0.4", ms=10, label="gray visible image")
    constant = [part.constant_error() for part in own]
    axes[1].plot(constant, rows, "|", color="0.4", ms=10, label="best constant image")
    for axis, title in zip(axes, ("correlation", "mean error, gray levels"), strict=True):
        axis.set_title(title, size=10)
        axis.invert_yaxis()
    legends = {
        label: line
        for axis in axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    canvas.legend(legends.values(), legends, loc="outside lower center", ncols=2, fontsize=7)
    axes[0].axvline(0, color="0.6", lw=1)
    axes[0].set_yticks(range(len(titles)), titles)
    axes[1].set_yticks(range(len(titles)), [""] * len(titles))
    return png(canvas)


def _plot_classes(parts: Sequence[Part], names: Sequence[str]) -> bytes:
    there = [i for i in range(len(names)) if any(part.by_class(i) for part in parts)]
    canvas, axes = grid(2, 2, height=1.2 + 0.3 * len(there))
    for number, part in enumerate(parts):
        scores = [(row, part.by_class(i)) for row, i in enumerate(there)]
        offset = 0.2 * (number - (len(parts) - 1) / 2)
        for axis, key in zip(axes, ("error", "correlation"), strict=True):
            points = [(row + offset, found[key]) for row, found in scores if found]
            errorbars(axis, points, part.title, f"C{number}", sideways=True)
    titles = ("mean error, gray levels", "correlation within the class and frame")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, size=10)
        axis.invert_yaxis()
    axes[0].legend(fontsize=7)
    axes[1].axvline(0, color="0.6", lw=1)
    axes[0].set_yticks(range(len(there)), [names[i] for i in there])
    axes[1].set_yticks(range(len(there)), [""] * len(there))
    return png(canvas)


def _plot_coverage(parts: Sequence[Part]) -> bytes:
    canvas, (axis,) = grid(1, 1, height=4.5)
    axis.plot([0, 100], [0, 100], color="0.6", linestyle="--", lw=1)
    colors: dict[str, str] = {}
    for part in parts:
        if (inside := part.inside()) is None:
            continue
        color = colors.setdefault(part.scene, f"C{len(colors)}")
        trained = part.relation == "trained on"
        label = f"{part.title}{' (trained on)' if trained else ''}"
        axis.plot(PERCENTS, 100 * inside, ":" if trained else "-", color=color, label=label)
    axis.set_xlabel("stated interval, %")
    axis.set_ylabel("pixels inside of it, %")
    axis.set_box_aspect(1)
    canvas.legend(loc="outside right upper", fontsize=8)
    return png(canvas)


def _plot_frames(parts: Sequence[Part]) -> bytes:
    """Draw the sets that have frames at a known distance from training frames."""
    far = [part.name for part in parts if any(part.distances)]
    sets = list(dict.fromkeys(far))
    canvas, axes = grid(len(sets), 3, height=3.6)
    for axis, name in zip(axes, sets, strict=True):
        for night, color in ((False, "C1"), (True, "C4")):
            points = [
                (distance, frame.correlation)
                for part in parts
                if part.name == name and part.night == night
                for frame, distance in zip(part.frames, part.distances, strict=True)
                if distance is not None
            ]
            if points:
                label = "night" if night else "day"
                axis.plot(
                    *zip(*points, strict=True), "o", ms=4, color=color, label=label, alpha=0.7
                )
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xlim(-2, max(d or 0 for part in parts for d in part.distances) * 1.5)
        axis.set_xticks([0, *_TICKS], ["trained on", *map(str, _TICKS)])
        axis.set_ylim(-1, 1)
        axis.axhline(0, color="0.6", lw=1)
        axis.set_title(name, size=10)
        axis.set_xlabel("distance from training, frame numbers")
        axis.legend(fontsize=8)
    axes[0].set_ylabel("correlation of a frame")
    return png(canvas)


def _picture(about: str, name: str) -> str:
    return f"![{about}]({name})"
