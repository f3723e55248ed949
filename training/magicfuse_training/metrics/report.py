# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""An evaluation as Markdown, and as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from typing import Any

from magicfuse_training.metrics import paper
from magicfuse_training.metrics.evaluation import Evaluated
from magicfuse_training.metrics.paper import tables_beside_paper
from magicfuse_training.metrics.plots import (
    plot_classes,
    plot_conditions,
    plot_reliability,
    plot_rows,
)
from magicfuse_training.metrics.table import (
    CONDITIONS,
    NOTES,
    ScoreTable,
    describe,
    markdown,
    set_tables,
    table_of_images,
)

TITLE = "Evaluation of a MagicFuse bundle"
START, END = "<!-- report: written by magicfuse-train evaluate -->", "<!-- /report -->"
PLOTS = {
    "conditions": ("Scores by condition, with 95 % intervals", plot_conditions),
    "reliability": ("How often the mask is right, over its confidence", plot_reliability),
    "classes": ("IoU by class", plot_classes),
    "images": ("Images side by side, with 95 % intervals", plot_rows),
}
IMAGES_NOTES = """\
- *EN, SD, SF* measure the image alone. *SSIM, MI, VIF*: summed over the visible frame before any
  degradation and the thermal image; MI in bits. *Qabf*: at most 0.975. *PSNR*: of the mean of both
  squared errors. The mean of two images does well in PSNR, and shows half of each.
- *PSNR to clean*: against the visible frame before any degradation.
- *light precision, light recall*: see *light* above; for images that light up the restored
  one, each with its own light.
- *of the light: on ...*: share of the lit pixels that lie on the class.
- *restored + clipped heat*: light by a formula where the mask says people, without the network F.
- *noise*: an exposure 3 to 5 stops too short, brought back by gain. *clean*: frames by day as they
  are; *night*: frames at night as they are."""
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem;
       color: #1c1e21; }
table { border-collapse: collapse; font-size: 12.5px; margin: 1rem 0; display: block;
        overflow-x: auto; }
th, td { border: 1px solid #d5d8dd; padding: .25rem .4rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td small { color: #6a7078; margin-left: .2rem; }
tr:nth-child(even) td { background: #f6f7f9; }
img { max-width: 100%; height: auto; display: block; margin: .5rem 0 1rem; }
h2 { border-top: 2px solid #d5d8dd; padding-top: 1rem; margin-top: 2.5rem; }
nav a { margin-right: 1rem; }
"""


def set_plots(scores: dict[str, Any]) -> dict[str, bytes]:
    """Return the plots of the scores of one set as PNG, by their names in `PLOTS`."""
    plots = {key: draw(scores) for key, (_, draw) in PLOTS.items()}
    return {key: plot for key, plot in plots.items() if plot is not None}


def as_markdown(scores: dict[str, Any], pictures: Mapping[str, Mapping[str, str]]) -> str:
    """Return all tables of an evaluation, without a title.

    Args:
        scores: as the command writes them; missing scores are left out.
        pictures: file names of plots to show, by set and by their names in `PLOTS`.
    """
    parts = [describe(scores)]
    for table in set_tables(scores):
        name = table.headings[0]
        parts += [f"## {name}"]
        for key, file in pictures.get(name, {}).items():
            parts += [f"{PLOTS[key][0]}:", f"![{PLOTS[key][0]}]({file})"]
        parts += [markdown(table)]
        for condition, images in _images(scores["sets"][name]).items():
            parts += [f"### {name}, {condition}: images side by side", markdown(images)]
    if beside := tables_beside_paper(scores):
        parts += [f"## {paper.TITLE}"]
        for title, table in beside.items():
            parts += [f"### {title}", markdown(table)]
        parts += [paper.NOTES]
    return "\n\n".join([*parts, "## Notes", f"{NOTES}\n{IMAGES_NOTES}"])


def as_html(
    scores: dict[str, Any], sets: Mapping[str, Evaluated], plots: Mapping[str, Mapping[str, bytes]]
) -> str:
    """Return tables, plots and frames of an evaluation as one page with embedded images.

    Args:
        scores: as the command writes them; missing scores are left out.
        sets: the results of each set.
        plots: from `set_plots`, by set.
    """
    tables = {table.headings[0]: table for table in set_tables(scores)}
    beside = tables_beside_paper(scores)
    titles = {f"set{i}": name for i, name in enumerate(tables)}
    titles |= ({"paper": paper.TITLE} if beside else {}) | {"notes": "Notes"}
    links = "".join(f'<a href="#{at}">{html.escape(name)}</a>' for at, name in titles.items())
    body = [f"<h1>{TITLE}</h1>", f"<p>{_marked(describe(scores))}</p>", f"<nav>{links}</nav>"]
    for i, (name, table) in enumerate(tables.items()):
        body += [f'<h2 id="set{i}">{html.escape(name)}</h2>']
        for key, plot in plots[name].items():
            body += [f"<h3>{PLOTS[key][0]}</h3>", _picture(plot, PLOTS[key][0])]
        body += ["<h3>Scores</h3>", _table(table)]
        for condition, images in _images(scores["sets"][name]).items():
            body += [f"<h3>{html.escape(condition)}: images side by side</h3>", _table(images)]
        for condition, sheet in sets[name].examples.items():
            body += [f"<h3>{html.escape(condition)}: best, median and worst frame</h3>"]
            body += [_picture(sheet, f"{name}, {condition}", "jpeg")]
    if beside:
        body += [f'<h2 id="paper">{paper.TITLE}</h2>']
        for title, table in beside.items():
            body += [f"<h3>{title}</h3>", _table(table)]
        body += [_notes(paper.NOTES)]
    body += ['<h2 id="notes">Notes</h2>', _notes(f"{NOTES}\n{IMAGES_NOTES}")]
    head = f'<meta charset="utf-8"><title>{TITLE}</title><style>{_STYLE}</style>'
    page = "\n".join(part for part in body if part)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{page}\n</body></html>\n'


def _notes(text: str) -> str:
    """Return a Markdown list as HTML."""
    items = re.split(r"(?:^|\n)- ", text)[1:]
    return "<ul>" + "".join(f"<li>{_marked(item)}</li>\n" for item in items) + "</ul>"


def _marked(text: str) -> str:
    """Return text with `code` and *terms* as HTML."""
    shown = re.sub(r"`(.+?)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", shown, flags=re.DOTALL)


def _images(scores: dict[str, Any]) -> dict[str, ScoreTable]:
    """Return the tables of images side by side, by condition."""
    return {
        condition: table_of_images(scores[condition]["images"])
        for condition in CONDITIONS
        if "images" in scores.get(condition, {})
    }


def _table(table: ScoreTable) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.headings)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>\n"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(text: str) -> str:
    """Return a cell as HTML: a score's interval in small print, so that wide tables fit."""
    return re.sub(r" \((\S+ to \S+)\)$", r" <small>\1</small>", html.escape(text))


def _picture(data: bytes | None, about: str, kind: str = "png") -> str:
    if data is None:
        return ""
    code = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(about)}" src="data:image/{kind};base64,{code}">'
