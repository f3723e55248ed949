"""Prints scores as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_scores(scores: dict[str, Any]) -> None:
    """Print what `score_camvid` and `score_msrs` returned."""
    camvid, msrs = scores["camvid_val"], scores["msrs_dev"]
    table = Table("CamVid val", *camvid, title=f"bundle {scores['bundle']}, K = {scores['steps']}")
    rows = {
        "PSNR of the input, dB": "psnr_input_db",
        "PSNR of the restored, dB": "psnr_restored_db",
        "mIoU, % (human masks)": "miou_percent",
        "flicker of the input (0-255)": "flicker_input",
        "flicker of MagImg (0-255)": "flicker_mag_image",
    }
    for title, key in rows.items():
        values = [f"{c[key]:.2f}" if key in c else "" for c in camvid.values()]
        table.add_row(title, *values)
    table.add_section()
    for name in camvid["clean"]["iou_percent"]:
        table.add_row(f"IoU {name}, %", *[f"{c['iou_percent'][name]:.1f}" for c in camvid.values()])
    Console().print(table)

    table = Table("MSRS dev", *msrs)
    for title, key in (
        ("thermal estimate", "thermal_estimate"),
        ("gray visible image", "gray_visible"),
        ("best constant image", "best_constant"),
    ):
        table.add_row(
            f"{title}: PSNR dB / SSIM",
            *[f"{m[key]['psnr_db']:.2f} / {m[key]['ssim']:.3f}" for m in msrs.values()],
        )
    for title, key in (
        ("person contrast, estimate / real", "person_contrast"),
        ("pedestrian pixels in a human box, %", "pedestrian_pixels_in_person_box_percent"),
        ("person boxes found, %", "person_boxes_found_percent"),
    ):
        table.add_row(title, *[f"{m[key]:.2f}" for m in msrs.values()])
    for key in ("visible", "restored", "mag_image"):
        table.add_row(f"mean luma, {key}", *[f"{m['luma'][key]:.1f}" for m in msrs.values()])
    Console().print(table)
