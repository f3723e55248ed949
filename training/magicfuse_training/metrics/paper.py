# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The paper's tables beside an evaluation, in one scale, and what differs.

The paper's figures are second-hand: as quoted in published notes on it (`SOURCE`). Rows that the
notes leave out are left out here, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.rows import INPUT, MAG_IMAGE, MEAN, RESTORED
from magicfuse_training.metrics.table import CONDITIONS, ScoreTable, cell

SOURCE = "en.papernotes.org, notes on arXiv 2602.01760 (CVPR 2026)"
TITLE = "Beside the paper"
# Images in 0 to 1, but a peak of 255: no PSNR of 8-bit images is otherwise as high as the paper's.
PSNR_OFFSET = 20 * float(np.log10(255))
VISUAL_METRICS = ("EN", "MI", "PSNR", "SSIM", "Qabf")
VISUAL: dict[str, tuple[float, ...]] = {
    "TarDAL, both sensors": (5.11, 1.45, 57.48, 0.12, 0.21),
    "EMMA, both sensors": (6.74, 3.46, 61.96, 0.43, 0.45),
    "Text-DiFuse, both sensors": (7.08, 2.99, 62.99, 0.41, 0.40),
    "DAFusion, both sensors": (7.26, 3.08, 61.71, 0.42, 0.33),
    "MagicFuse, visible alone": (7.29, 4.13, 63.49, 0.45, 0.50),
}
SEMANTIC: dict[tuple[str, str], float] = {
    ("MFNet test", "degraded visible"): 54.09,
    ("MFNet test", "Text-IF, both sensors"): 60.65,
    ("MFNet test", "EMMA, both sensors"): 61.98,
    ("MFNet test", "SegMiF, both sensors"): 62.28,
    ("MFNet test", "MagicFuse, visible alone"): 62.19,
    ("Cityscapes", "visible"): 65.80,
    ("Cityscapes", "MagicFuse, visible alone"): 66.91,
}
NOTES = f"""\
- *The paper's figures are second-hand*: quoted from {SOURCE},
  not checked against the paper.
- *Scale*: the paper's PSNR fits only images in 0 to 1 compared with a peak of 255, so
  {PSNR_OFFSET:.2f} dB are added to ours here. Its SSIM is read as the mean over both sources, so
  ours is halved here. The unit of its MI is not known; ours is in bits, summed.
- *Data*: there MFNet's test split, 392 frames. Here the held-out frames of each set, stored as
  JPEG, as many as its table says. MSRS stems from MFNet, but has other splits.
- *Degradations*: there a mix whose strengths the notes do not give; here one condition at a time.
- *Sources*: here the frame before it was degraded, and the real thermal image.
- *mIoU*: there of SegFormer, trained again on the images of each method, with MFNet's 9 classes;
  here of the bundle's own masks, with its own classes. `magicfuse-train downstream` follows
  the paper's protocol, as far as the notes give it."""
_ROWS = (INPUT, RESTORED, MEAN, MAG_IMAGE)
_PAPER = "paper"


def tables_beside_paper(scores: dict[str, Any]) -> dict[str, ScoreTable]:
    """Return fused images and masks of the paper and of an evaluation, by title.

    Args:
        scores: as `magicfuse-train evaluate` writes them.

    Returns:
        No table if the evaluation has nothing to compare with the paper.
    """
    images: list[list[str]] = []
    masks: list[list[str]] = []
    for name, some in scores["sets"].items():
        for condition in (c for c in CONDITIONS if c in some):
            rows = some[condition].get("images", {})
            for row in (r for r in _ROWS if "MI" in rows.get(r, {})):
                shown = [cell(_scaled(m, rows[row][m]), 2) for m in VISUAL_METRICS]
                images.append([f"{name}, {condition}", row, *shown])
            if "miou_percent" in some[condition]:
                miou = cell(some[condition]["miou_percent"], 1)
                about = f"the bundle, labels {some[condition]['labels']}"
                masks.append([f"{name}, {condition}", about, miou])
    tables = {}
    if images:
        published = [
            [f"{_PAPER}: MFNet test", method, *[f"{value:.2f}" for value in values]]
            for method, values in VISUAL.items()
        ]
        heading = ["frames", "image", *VISUAL_METRICS]
        tables["Fused images"] = ScoreTable(heading, published + images)
    if masks:
        published = [
            [f"{_PAPER}: {frames}", method, f"{value:.2f}"]
            for (frames, method), value in SEMANTIC.items()
        ]
        heading = ["frames", "masks from", "mIoU, %"]
        tables["Masks"] = ScoreTable(heading, published + masks)
    return tables


def _scaled(metric: str, figure: Figure) -> Figure:
    """Return a figure of ours in the paper's scale."""
    if metric == "PSNR":
        return Figure(*[value + PSNR_OFFSET for value in figure])
    if metric == "SSIM":
        return Figure(*[value / 2 for value in figure])
    return figure
