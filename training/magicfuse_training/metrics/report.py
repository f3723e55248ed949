"""An evaluation as Markdown, and as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

from magicfuse_training.metrics.evaluation import Evaluated
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
IMAGES_NOTES = """\
- *EN, SD, SF*: of the image alone. *SSIM, MI, VIF*: summed over the visible frame before any
  degradation and the thermal image; MI in bits. *Qabf*: at most 0.975. *PSNR*: of the mean of both
  squared errors. The mean of two images does well in PSNR, and shows half of each.
- *PSNR to clean*: against the visible frame before any degradation.
- *person contrast*: see above; of each image.
- *of the light: on ...*: share of the lit pixels that lie on the class.
- *restored + clipped heat*: light by a formula where the mask says people, without the network F.
- *noise*: an exposure 3 to 5 stops too short, brought back by gain. *clean*: frames by day as they
  are; *night*: frames at night as they are."""
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem;
       color: #1c1e21; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block;
        overflow-x: auto; }
th, td { border: 1px solid #d5d8dd; padding: .25rem .5rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr:nth-child(even) td { background: #f6f7f9; }
img { max-width: 100%; height: auto; display: block; margin: .5rem 0 1rem; }
h2 { border-top: 2px solid #d5d8dd; padding-top: 1rem; margin-top: 2.5rem; }
nav a { margin-right: 1rem; } pre { white-space: pre-wrap; font: inherit; }
"""


def as_markdown(scores: dict[str, Any]) -> str:
    """Return all tables of an evaluation."""
    parts = [f"# {TITLE}", describe(scores)]
    for table in set_tables(scores):
        name = table.headings[0]
        parts += [f"## {name}", markdown(table)]
        for condition, images in _images(scores["sets"][name]).items():
            parts += [f"### {name}, {condition}: images side by side", markdown(images)]
    return "\n\n".join([*parts, "## Notes", f"{NOTES}\n{IMAGES_NOTES}"]) + "\n"


def as_html(scores: dict[str, Any], sets: Mapping[str, Evaluated]) -> str:
    """Return tables, plots and frames of an evaluation as one page with embedded images.

    Args:
        scores: as the command writes them; missing scores are left out.
        sets: the results of each set.
    """
    tables = {table.headings[0]: table for table in set_tables(scores)}
    links = "".join(f'<a href="#set{i}">{html.escape(name)}</a>' for i, name in enumerate(tables))
    body = [f"<h1>{TITLE}</h1>", f"<p>{html.escape(describe(scores))}</p>", f"<nav>{links}</nav>"]
    for i, (name, table) in enumerate(tables.items()):
        some = scores["sets"][name]
        body += [f'<h2 id="set{i}">{html.escape(name)}</h2>']
        body += [_picture(plot_conditions(some), "Scores by condition, with 95 % intervals")]
        body += [_table(table)]
        body += [_picture(plot_reliability(some), "Reliability of the confidence")]
        body += [_picture(plot_classes(some), "IoU by class")]
        body += [_picture(plot_rows(some), "Images side by side")]
        for condition, images in _images(some).items():
            body += [f"<h3>{html.escape(condition)}: images side by side</h3>", _table(images)]
        for condition, sheet in sets[name].examples.items():
            body += [f"<h3>{html.escape(condition)}: best, median and worst frame</h3>"]
            body += [_picture(sheet, f"{name}, {condition}", "jpeg")]
    notes = html.escape(f"{NOTES}\n{IMAGES_NOTES}")
    body += [f"<h2>Notes</h2><pre>{notes}</pre>"]
    head = f'<meta charset="utf-8"><title>{TITLE}</title><style>{_STYLE}</style>'
    page = "\n".join(part for part in body if part)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{page}\n</body></html>\n'


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
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _picture(data: bytes | None, about: str, kind: str = "png") -> str:
    if data is None:
        return ""
    code = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(about)}" src="data:image/{kind};base64,{code}">'
