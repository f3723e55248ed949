# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Shows the best, the median and the worst frame of a set under a condition side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.fuser import FusedFrame, Fuser, Output
from magicfuse_ros.media.panels import PanelPage, panel_height, scale_to
from magicfuse_ros.overlay import overlay
from magicfuse_training.arrays import U8
from magicfuse_training.metrics.frames import Frame, Frames, given
from magicfuse_training.metrics.fusion import edge_preservation
from magicfuse_training.metrics.images import luma, psnr
from magicfuse_training.metrics.restoration import Condition
from magicfuse_training.metrics.score import images_of

PLACES = ("best", "median", "worst")
_PANEL_WIDTH = 236  # pixels
_QUALITY = 82  # of JPEG


@dataclass(frozen=True)
class Ranked:
    """A frame's index in its set, and its score in the ranking."""

    name: str
    index: int
    night: bool
    by: str
    value: float


class Ranking:
    """Ranks frames by the best available score.

    Frames with hand-drawn labels are ranked by the share of right pixels, others by Qabf of MagImg
    if there is a thermal image, else by the PSNR of the restored image.
    """

    outputs: frozenset[Output] = frozenset({"mask", "restored", "mag_image"})

    def __init__(self, classes: int) -> None:
        """Store the number of the bundle's classes."""
        self._classes = classes
        self._ranked: list[Ranked] = []

    def applies(self, frame: Frame) -> bool:
        """Return whether there is a score to rank by; false at night if nothing is known."""
        return self._labelled(frame) or frame.thermal is not None or not frame.night

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Rank one frame."""
        if self._labelled(frame):
            label = given(frame.label)
            known = label < self._classes
            by, value = ("pixels right, %", 100 * float((label == given(fused.mask))[known].mean()))
        elif frame.thermal is not None:
            sources = luma(frame.visible), frame.thermal
            by, value = "Qabf", edge_preservation(*sources, luma(given(fused.mag_image)))
        else:
            by, value = "PSNR of restored, dB", psnr(given(fused.restored), frame.visible)
        if not np.isnan(value):
            self._ranked.append(Ranked(frame.name, frame.index, frame.night, by, value))

    def _labelled(self, frame: Frame) -> bool:
        return frame.drawn and bool((given(frame.label) < self._classes).any())

    def scores(self) -> dict[str, object]:
        """Return nothing: it has no scores."""
        return {}

    def chosen(self) -> dict[str, Ranked]:
        """Return the best, median and worst frame, each once, by the most common kind of score."""
        kinds = [ranked.by for ranked in self._ranked]
        if not kinds:
            return {}
        by = max(dict.fromkeys(kinds), key=kinds.count)
        order = sorted((r for r in self._ranked if r.by == by), key=lambda r: -r.value)
        chosen: dict[str, Ranked] = {}
        for place, at in zip(PLACES, (0, len(order) // 2, -1), strict=True):
            if order[at] not in chosen.values():  # with one or two frames
                chosen[place] = order[at]
        return chosen


def draw_examples(
    chosen: dict[str, Ranked],
    frames: Frames,
    condition: str,
    conditions: Sequence[Condition],
    fuser: Fuser,
    classes: Sequence[SemanticClass],
) -> bytes:
    """Fuse the chosen frames again and return them as one JPEG, one row per frame."""
    rows: list[list[U8]] = []
    titles: list[str] = []
    for ranked in chosen.values():
        frame = frames.read(ranked.index, ranked.night)
        image = images_of(frame, conditions)[condition]
        fused = fuser(image, {"mag_image", "restored", "thermal_estimate", "mask"})
        shown = {
            "input": image,
            "restored": given(fused.restored),
            "thermal estimate": _rgb(given(fused.thermal_estimate)),
            "MagImg": given(fused.mag_image),
            "classes": overlay(image, given(fused.mask), classes),
        }
        if frame.thermal is not None:
            shown["real thermal"] = _rgb(frame.thermal)
        titles = titles or list(shown)
        rows.append([shown[title] for title in titles])
    size = (_PANEL_WIDTH, panel_height(rows[0][0], _PANEL_WIDTH))
    labels = [
        f"{place}: {ranked.name} ({ranked.by}: {ranked.value:.3g})"
        for place, ranked in chosen.items()
    ]
    legend = [(c.name, c.color) for c in classes]
    page = PanelPage(titles, size, row_labels=labels, legend=legend)
    sheet = page.render([[scale_to(image, *size) for image in row] for row in rows])
    bgr = cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _rgb(gray: U8) -> U8:
    return np.repeat(gray[..., None], 3, axis=2)
