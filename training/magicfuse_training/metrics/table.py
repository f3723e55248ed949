# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Prints scores: a table per set on the terminal, and tables in a model card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_training.console import say
from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.pages import split_page, write_page

START, END = "<!-- scores: written by magicfuse-train score --record -->", "<!-- /scores -->"
CONDITIONS = ("clean", "dark", "haze", "rain", "noise", "night")
BOTH = "both"

Keys = tuple[str, ...]  # keys into the scores of a condition
Row = tuple[str, Keys, int]  # its label, the path to its values, and their decimals

MAIN: tuple[Row, ...] = (
    ("frames", ("frames",), 0),
    ("labels", ("labels",), 0),
    ("mIoU, %", ("miou_percent",), 1),
    ("right group, %", ("right_group_percent",), 1),
    ("sky, building, tree called road, %", ("called_road_percent", "all"), 1),
    ("calibration error of the confidence, %", ("ece_percent",), 1),
    ("PSNR of the input, dB", ("psnr_input_db",), 2),
    ("PSNR of the clean frame, resized, dB", ("psnr_resized_db",), 2),
    ("PSNR of the restored image, dB", ("psnr_restored_db",), 2),
    ("PSNR of MagImg, dB", ("psnr_mag_image_db",), 2),
    ("SSIM of the input", ("ssim_input",), 3),
    ("SSIM of the restored image", ("ssim_restored",), 3),
    ("MS-SSIM of the input", ("ms_ssim_input",), 3),
    ("MS-SSIM of the restored image", ("ms_ssim_restored",), 3),
    ("light: precision", ("light_precision",), 2),
    ("light: recall", ("light_recall",), 2),
    ("light: precision, pedestrians alone", ("light_precision_pedestrians",), 2),
    ("light: recall, pedestrians alone", ("light_recall_pedestrians",), 2),
    ("thermal estimate: PSNR, dB", ("thermal", "psnr_estimate_db"), 2),
    ("gray visible image: PSNR, dB", ("thermal", "psnr_gray_visible_db"), 2),
    ("best constant image: PSNR, dB", ("thermal", "constant_of_best_psnr", "psnr_db"), 2),
    ("thermal estimate: SSIM", ("thermal", "ssim_estimate"), 3),
    ("gray visible image: SSIM", ("thermal", "ssim_gray_visible"), 3),
    ("best constant image: SSIM", ("thermal", "constant_of_best_ssim", "ssim"), 3),
    ("thermal estimate: correlation", ("thermal", "correlation_estimate"), 2),
    ("gray visible image: correlation", ("thermal", "correlation_gray_visible"), 2),
    ("pixels in the stated 50 % interval, %", ("thermal", "coverage_50_percent"), 1),
    ("pixels in the stated 90 % interval, %", ("thermal", "coverage_90_percent"), 1),
    ("flicker of the input (0-255)", ("flicker_input",), 2),
    ("flicker of MagImg (0-255)", ("flicker_mag_image",), 2),
)
_CONTRAST = ("people", "person_contrast")
PEOPLE: tuple[Row, ...] = (
    ("person contrast, thermal estimate / real thermal", (*_CONTRAST, "thermal_estimate"), 2),
    ("person contrast, visible image / real thermal", (*_CONTRAST, "visible"), 2),
    ("person contrast, MagImg / real thermal", (*_CONTRAST, "mag_image"), 2),
    (
        "pedestrian pixels in a human person box, %",
        ("people", "pedestrian_pixels_in_person_box_percent"),
        1,
    ),
    ("infrared person boxes found, %", ("people", "person_boxes_found_percent"), 1),
    ("infrared person boxes", ("people", "person_boxes"), 0),
    ("mean luma, visible", ("people", "luma", "visible"), 1),
    ("mean luma, restored", ("people", "luma", "restored"), 1),
    ("mean luma, MagImg", ("people", "luma", "mag_image"), 1),
)
# Label of the rows, and the key of the scores by class, by group and so on.
DETAILS = (
    ("IoU of {}, %", "iou_percent"),
    ("right in the group {}, %", "group_percent"),
    ("{} called road, %", "called_road_percent"),
    ("of the light: on {}, %", "lit_percent"),
)
CURVE = "light_by_tau"
IMAGE_DECIMALS = {
    "EN": 2,
    "SD": 1,
    "SF": 1,
    "SSIM": 3,
    "MI": 2,
    "Qabf": 3,
    "PSNR": 2,
    "VIF": 3,
    "PSNR to clean": 2,
    "person contrast": 2,
    "light precision": 2,
    "light recall": 2,
}

NOTES = """\
- In brackets: the 95 % bootstrap interval over frames. Frames of one video are alike, so that
  their intervals are too narrow.
- *labels*: who made them. *coarse by eye*: drawn in part; mIoU of sky, building, road, tree, car
  and pedestrian. *pseudo*: labels made by another network, for moving objects only. *mIoU* is that
  of the classes in 5 frames or more.
- *PSNR of the clean frame, resized*: that of a clean frame after it
  was scaled to the networks' size and back. No restored image of a clean frame can be much better.
- *right group*: IDD's labels are groups of classes. The share of a group's pixels that are called
  one of its classes, mean over groups.
- *calibration error*: |share of right pixels - mean confidence|, in 15 bins of the confidence.
  With few frames it is overestimated; its interval then extends mostly upwards.
- *light*: a pixel is lit where MagImg's luma is 20 of 255 above the restored image's. Precision:
  the share of the light that is on pedestrians and what is labelled bicyclist (riders and bicycles;
  void in coarse masks, where nobody rides them), or within 5 pixels of them. Recall: the share of
  their pixels that is lit.
- *stated intervals*: without pixels that the real image has cut off at 0 or 255.
- *best constant image*: every pixel has the same level, the best one for these frames.
- *correlation*: Pearson's, mean over frames. Thermal images of cameras with automatic gain were
  brought to MSRS's level and gain.
- *flicker*: mean absolute difference of two outputs of one dark scene with two draws of sensor
  noise.
- *person contrast*: mean inside an infrared person box minus mean of a ring around it, summed over
  boxes, and divided by that of the real thermal image. *found*: at least a tenth of the box is
  called pedestrian."""


@dataclass(frozen=True)
class ScoreTable:
    """A heading for every column, and rows with a label and values."""

    headings: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class _Column:
    heading: str
    scores: dict[str, Any]


def card_tables(scores: dict[str, Any]) -> dict[str, ScoreTable]:
    """Return all scores as tables by title: the main one (""), then the details."""
    sets: dict[str, dict[str, Any]] = scores["sets"]
    columns = [
        _Column(f"{name}, {condition}", some[condition])
        for name, some in sets.items()
        for condition in CONDITIONS
        if condition in some
    ]
    both = [_Column(f"{name}, {BOTH}", some[BOTH]) for name, some in sets.items() if BOTH in some]
    tables = {
        "": _table("", columns, MAIN),
        "By class and group": _table("", columns, _details(columns)),
        "People in boxes": _table("", columns + both, PEOPLE),
        "Light over tau: precision / recall": _curve(columns),
    }
    return {title: table for title, table in tables.items() if table.rows}


def set_tables(scores: dict[str, Any]) -> list[ScoreTable]:
    """Return a table for each set, with a column for each condition."""
    tables = []
    for name, some in scores["sets"].items():
        columns = [_Column(c, some[c]) for c in (*CONDITIONS, BOTH) if c in some]
        table = _table(name, columns, (*MAIN, *PEOPLE, *_details(columns)))
        curve = _curve(columns)
        places = [column.heading for column in columns]
        for tau, *cells in curve.rows:
            by_column = dict(zip(curve.headings[1:], cells, strict=True))
            row = [f"light at tau {tau}: precision / recall"]
            table.rows.append([*row, *[by_column.get(place, "") for place in places]])
        tables.append(table)
    return tables


def table_of_images(images: dict[str, dict[str, Any]]) -> ScoreTable:
    """Return a table of images, one row per image: see `rows.Rows`."""
    there = [m for m in IMAGE_DECIMALS if any(m in row for row in images.values())]
    rows = [
        [name, *[cell(row.get(m), IMAGE_DECIMALS[m]) for m in there]]
        for name, row in images.items()
    ]
    return ScoreTable(["image", *there], rows)


def markdown(table: ScoreTable) -> str:
    """Return a table in Markdown."""
    lines = [table.headings, ["---"] * len(table.headings), *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _table(title: str, columns: Sequence[_Column], rows: Iterable[Row]) -> ScoreTable:
    """Return a table without its empty rows and columns."""
    cells = {
        label: [cell(value_at(column.scores, keys), decimals) for column in columns]
        for label, keys, decimals in rows
    }
    cells = {label: some for label, some in cells.items() if any(some)}
    there = [i for i in range(len(columns)) if any(some[i] for some in cells.values())]
    return ScoreTable(
        [title, *[columns[i].heading for i in there]],
        [[label, *[some[i] for i in there]] for label, some in cells.items()],
    )


def _details(columns: Sequence[_Column]) -> list[Row]:
    """Return the rows by class and so on, each once, in order of appearance."""
    rows: dict[Row, None] = {}
    for label, key in DETAILS:
        for column in columns:
            names = [name for name in column.scores.get(key, {}) if name != "all"]
            rows |= dict.fromkeys((label.format(name), (key, name), 1) for name in names)
    return list(rows)


def _curve(columns: Sequence[_Column]) -> ScoreTable:
    some = [column for column in columns if CURVE in column.scores]
    taus = dict.fromkeys(tau for column in some for tau in column.scores[CURVE])
    rows = []
    for tau in taus:
        points = [column.scores[CURVE].get(tau) for column in some]
        cells = [f"{cell(p['precision'], 2)} / {cell(p['recall'], 2)}" if p else "" for p in points]
        rows.append([tau, *cells])
    return ScoreTable(["tau", *[column.heading for column in some]], rows)


def value_at(scores: dict[str, Any], keys: Keys) -> Any:
    """Return what is found in nested scores by one key after the other; None if it is missing."""
    found: Any = scores
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def cell(value: Any, decimals: int) -> str:
    """Return a score as text, with its interval; "-" for NaN."""
    if isinstance(value, Figure):
        if np.isnan(value.value):
            return "-"
        middle, low, high = (_number(v, decimals) for v in value)
        return middle if low == middle == high else f"{middle} ({low} to {high})"
    if isinstance(value, int | float):
        return "-" if np.isnan(value) else _number(value, decimals)
    return value or ""


def _number(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # no "-0.00"


def describe(scores: dict[str, Any]) -> str:
    """Return one line that tells what was scored, and how."""
    some = "" if scores["every"] == 1 else f", one frame in {scores['every']}"
    return (
        f"`{scores['bundle']}`, K = {scores['steps']}, tau {scores['tau']:g}, "
        f"{scores['precision']} in {scores['backend']}{some}."
    )


def print_scores(scores: dict[str, Any]) -> None:
    """Print a table for each set."""
    console = output_console()
    say(describe(scores))
    for table in set_tables(scores):
        shown = Table()
        for heading in table.headings:
            shown.add_column(Text(heading))
        for row in table.rows:
            shown.add_row(*map(Text, row))
        console.print(unclipped(shown))


def read_card(card: Path) -> tuple[str, str]:
    """Return the parts of a model card before and after its marked section.

    Raises:
        TrainingError: if it cannot be read, or lacks the two markers.
    """
    return split_page(card, START, END, "model card")


def write_into_card(scores: dict[str, Any], card: Path) -> None:
    """Replace the marked section of a model card.

    Raises:
        TrainingError: see `write_page`.
    """
    parts = [describe(scores)]
    for title, table in card_tables(scores).items():
        shown = markdown(table)
        parts += [f"### {title}", shown] if title else [shown, NOTES]
    write_page(card, START, END, "\n\n".join(parts), "model card")
