# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train check-data`: checks that a data set is complete and valid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.contact_sheet import SHEET_ROWS, contact_sheet
from magicfuse_ros.output_files import check_file, write_png
from magicfuse_training.data.check import SplitReport, WidthHeight, check_split
from magicfuse_training.data.classes import (
    CLASSES,
    FOLDER,
    IGNORE,
    LOOKALIKE,
    NOBODY,
    SETS,
    STATIC,
    own_labels,
)
from magicfuse_training.data.datasets import DATASETS, dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import STRETCH
from magicfuse_training.data.layout import PARTS, DataSet
from magicfuse_training.data.scenes import Scene, read_scene
from magicfuse_training.preset import Preset, load_preset

_SHOWN = 3
_STATIC_COLOR = (30, 60, 60)
_TARGETS = {
    **dict(enumerate(CLASSES)),
    **{i: " or ".join(CLASSES[c] for c in some) for i, some in SETS.items()},
    NOBODY: "not pedestrian",
    STATIC: "static",
    LOOKALIKE: "lookalike",
    IGNORE: "ignored",
}


def check_data_command(
    kind: Annotated[str, typer.Argument(help=f"one of {', '.join(DATASETS)}")],
    root: Annotated[Path, typer.Argument(help="folder of the data set")],
    split: Annotated[str | None, typer.Option(help="only this split; default: all")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="PNG to write, with some of the scenes")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="preset whose class ids the labels of a folder use")
    ] = "nano",
) -> None:
    """Read every file of a data set; exit with 1 if a file is missing, damaged or unexpected."""
    data, config = dataset(kind), load_preset(preset)
    names = tuple(c.name for c in config.classes)
    if data.labels is FOLDER and names != CLASSES:
        data = replace(data, labels=own_labels(names))
    if sheet and sheet.parent.is_dir():
        check_file(sheet)
    reports = []
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        for name in [split] if split else data.splits_in(root):
            task = progress.add_task(f"{kind} {name}")

            reports.append(check_split(data, root, name, partial(_show, progress, task)))
    if not any(report.counts.get("visible") for report in reports):
        raise DataError(
            f"'{root}' holds no scene of {kind}; expected {data.templates['visible']} "
            f"({data.source})"
        )
    console = output_console()
    console.print(unclipped(_overview(data, reports)))
    if any(report.labels for report in reports):
        console.print(unclipped(_label_table(data, reports)))
    boxes = sum((report.boxes for report in reports), Counter())
    if boxes:
        targets = {name: _TARGETS[target] for name, target in data.boxes.items()}
        listed = [f"{n:,} x {k} ({targets.get(k, 'unknown')})" for k, n in boxes.most_common()]
        console.print(f"boxes: {', '.join(listed)}", markup=False, soft_wrap=True)
    for line in _remarks(reports):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if sheet:
        # With the set's own map: reading a scene maps a folder's ids to the preset's itself.
        _write_sheet(dataset(kind), config, reports, sheet)
        console.print(f"{sheet} written", markup=False, soft_wrap=True)
    faults = _print_faults(console, reports)
    if faults:
        raise typer.Exit(1)
    console.print("complete: no file is missing, damaged or unknown", style="green")


def _show(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


def _overview(data: DataSet, reports: list[SplitReport]) -> Table:
    table = Table("split", *PARTS, "sizes", "thermal depth", title=data.kind)
    for report in reports:
        counts = [f"{report.counts[p]:,}" if p in report.counts else "-" for p in PARTS]
        sizes = [f"{part} {_range(found)}" for part, found in report.sizes.items()]
        depths = [f"{name} ({count:,})" for name, count in report.depths.most_common()]
        table.add_row(report.split, *counts, "\n".join(sizes) or "-", "\n".join(depths) or "-")
    return table


def _range(found: Counter[WidthHeight]) -> str:
    small, *_, large = [f"{w}x{h}" for w, h in sorted([*found, *found], key=lambda s: s[0] * s[1])]
    return small if len(found) == 1 else f"{len(found)} sizes, {small} to {large}"


def _label_table(data: DataSet, reports: list[SplitReport]) -> Table:
    assert data.labels is not None
    own = data.labels is not dataset(data.kind).labels
    targets = {t: n for n, t in data.labels.classes.values()} if own else _TARGETS
    table = Table("id", "name", "becomes", title=f"labels: {data.labels.name}")
    for report in reports:
        table.add_column(f"{report.split}, % of pixels", justify="right")
    found = {i for report in reports for i in report.labels}
    for i in sorted(found | data.labels.classes.keys()):
        name, target = data.labels.classes.get(i, ("?", None))
        shares = [100 * report.labels[i] / max(report.labels.total(), 1) for report in reports]
        table.add_row(
            str(i),
            name,
            "unknown" if target is None else targets[target],
            *(f"{share:.2f}" if share else "-" for share in shares),
            style="red" if target is None else None,
        )
    return table


def _remarks(reports: list[SplitReport]) -> Iterator[str]:
    """Point out what may surprise a user but is not a fault."""
    if stretched := sum(report.stretched for report in reports):
        yield (
            f"thermal: no file says what the levels of {stretched:,} pictures in 16 bits or "
            "floats mean: each is stretched between its percentiles "
            f"{STRETCH[0]:g} and {STRETCH[1]:g}, as if by automatic gain"
        )
    for report in reports:
        if report.left_out:
            shown = ", ".join(path.as_posix() for path in report.left_out[:_SHOWN])
            more = ", ..." if len(report.left_out) > _SHOWN else ""
            yield f"split {report.split}: {len(report.left_out):,} not taken: {shown}{more}"


def _print_faults(console: Console, reports: list[SplitReport]) -> int:
    total = 0
    for report in reports:
        for kind, items in report.faults.items():
            total += len(items)
            console.print(f"split {report.split}: {len(items):,} x {kind}", style="red")
            for item in items[:_SHOWN]:
                console.print(f"    {item}", highlight=False, markup=False, soft_wrap=True)
            if len(items) > _SHOWN:
                console.print(f"    and {len(items) - _SHOWN:,} more")
    return total


def _write_sheet(data: DataSet, preset: Preset, reports: list[SplitReport], path: Path) -> None:
    """Write the training inputs of a few scenes, spread over all splits."""
    names = [c.name for c in preset.classes]
    palette = np.zeros((256, 3), np.uint8)
    for c in preset.classes:
        palette[c.id] = c.color
    palette[list(SETS)] = _STATIC_COLOR
    sound = [(report.split, record) for report in reports for record in report.sound]
    if not sound:
        raise DataError("no scene is sound enough for a sheet")
    chosen = np.linspace(0, len(sound) - 1, min(SHEET_ROWS, len(sound))).round().astype(int)
    scenes = []
    for i in chosen:
        split, record = sound[i]
        scenes.append((split, read_scene(data, record, preset.height, preset.width, names)))
    parts = {part for report in reports for part in report.counts}
    titles = ["visible, with the boxes of people" if "boxes" in parts else "visible"]
    titles += [part for part in ("thermal", "label") if part in parts]
    rows: list[tuple[str, list[Pixels]]] = []
    for split, scene in scenes:
        black = np.zeros(scene.label.shape, np.uint8)
        pictures: dict[str, Pixels] = {
            "thermal": black if scene.thermal is None else scene.thermal,
            "label": np.asarray(palette[scene.label], np.uint8),
        }
        label = f"{split}: {scene.name} ({'clean' if scene.clean else 'night'})"
        rows.append((label, [_with_people(scene), *(pictures[part] for part in titles[1:])]))
    legend = [(c.name, c.color) for c in preset.classes]
    legend += [("static", _STATIC_COLOR), ("ignored", (0, 0, 0))]
    shown = legend if "label" in parts else ()
    write_png(path, contact_sheet(rows, titles, legend=shown, heading=data.kind))


def _with_people(scene: Scene) -> Pixels:
    image: Pixels = scene.visible.copy()
    for x0, y0, x1, y1 in scene.people.round().astype(int).tolist():
        cv2.rectangle(image, (x0, y0), (x1, y1), (255, 220, 0), 2)
    return image
