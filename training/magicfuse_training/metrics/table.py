"""Shows scores: on the terminal, and in the bundle's model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

START, END = "<!-- scores: written by magicfuse-train score --record -->", "<!-- /scores -->"


@dataclass(frozen=True)
class ScoreTable:
    """A heading for every column, and rows of a label and its values."""

    headings: list[str]
    rows: list[list[str]]


def score_tables(scores: dict[str, Any]) -> list[ScoreTable]:
    """Return what `score_camvid` and `score_msrs` measured as two tables."""
    camvid, msrs = scores["camvid_val"], scores["msrs_dev"]
    labels = {
        "PSNR of the input, dB": "psnr_input_db",
        "PSNR of the restored image, dB": "psnr_restored_db",
        "PSNR of MagImg, dB": "psnr_mag_image_db",
        "mIoU, % (human masks)": "miou_percent",
        "flicker of the input (0-255)": "flicker_input",
        "flicker of MagImg (0-255)": "flicker_mag_image",
    }
    first = [
        [label, *[f"{c[key]:.2f}" if key in c else "" for c in camvid.values()]]
        for label, key in labels.items()
    ]
    for name in camvid["clean"]["iou_percent"]:
        values = [f"{c['iou_percent'][name]:.1f}" for c in camvid.values()]
        first.append([f"IoU of {name}, %", *values])

    images = [msrs["day"], msrs["night"]]
    second = []
    for label, key in (
        ("thermal estimate", "thermal_estimate"),
        ("gray visible image", "gray_visible"),
        ("constant image of the best PSNR", "constant_of_best_psnr"),
        ("constant image of the best SSIM", "constant_of_best_ssim"),
    ):
        pairs = [f"{m[key]['psnr_db']:.2f} / {m[key]['ssim']:.3f}" for m in images]
        second.append([f"{label}: PSNR dB / SSIM", *pairs, ""])
    for label, key in (
        ("thermal estimate", "thermal_estimate"),
        ("visible image", "visible"),
        ("MagImg", "mag_image"),
    ):
        contrasts = [f"{m['person_contrast'][key]:.2f}" for m in msrs.values()]
        second.append([f"person contrast, {label} / real thermal", *contrasts])
    for label, key in (
        ("pedestrian pixels in a human person box, %", "pedestrian_pixels_in_person_box_percent"),
        ("infrared person boxes found, %", "person_boxes_found_percent"),
    ):
        second.append([label, *[f"{m[key]:.2f}" for m in msrs.values()]])
    for key in ("visible", "restored", "mag_image"):
        second.append([f"mean luma, {key}", *[f"{m['luma'][key]:.1f}" for m in images], ""])
    return [
        ScoreTable([f"CamVid val, K = {scores['steps']}", *camvid], first),
        ScoreTable([f"MSRS dev, K = {scores['steps']}", *msrs], second),
    ]


def print_scores(scores: dict[str, Any]) -> None:
    """Print the tables."""
    for table in score_tables(scores):
        shown = Table(*table.headings)
        for row in table.rows:
            shown.add_row(*row)
        Console().print(shown)


def write_into_card(scores: dict[str, Any], card: Path) -> None:
    """Replace the marked section of a model card.

    Raises:
        ValueError: if the card lacks the two markers.
    """
    text = card.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise ValueError(f"'{card}' lacks the lines '{START}' and '{END}'")
    parts = []
    for table in score_tables(scores):
        rule = ["---"] * len(table.headings)
        lines = [table.headings, rule, *table.rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    before, after = text.split(START)[0], text.split(END)[1]
    body = "\n\n".join(parts)
    card.write_text(f"{before}{START}\n\n{body}\n\n{END}{after}", encoding="utf-8")
