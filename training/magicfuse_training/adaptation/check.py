# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks that an adapted bundle is better on held-out frames and safe to use.

The held-out frames have no labels. The reference is therefore the old bundle's mask of the clean
frame, wherever that mask is confident. The check measures how much of this reference each bundle
recovers when the frame is dark or hazy. Confident pixels are nearly all of large, easy classes, so
the masks of degraded frames are also compared on all pixels, class by class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.progress import track

from magicfuse_ros.fuser import Fuser, Output
from magicfuse_training.adaptation.frames import HELD_OUT
from magicfuse_training.adaptation.labels import sure
from magicfuse_training.data.classes import CLASSES
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.files import read_image
from magicfuse_training.data.scenes import Scenes
from magicfuse_training.degradations import degrade
from magicfuse_training.metrics.frames import given
from magicfuse_training.metrics.images import psnr
from magicfuse_training.metrics.segmentation import Confusion

BY_DAY = (("dark", 0.5), ("haze", 0.5))  # kinds and strengths of the degradations
AT_NIGHT = (("dark", 0.0),)  # a night frame that is darkened much further shows nothing
LEAST_KEPT = 97.0  # percent of the old masks' confident pixels on which the new masks must agree
MORE_SURE = 10.0  # points by which `sure` may rise if the new masks are no better
RESTORED_LOSS = 0.3  # dB
LEAST_THERMAL = 32.0  # dB between the old and the new thermal estimate
_OUTPUTS: tuple[Output, ...] = ("mask", "confidence", "restored", "thermal_estimate")


@dataclass(frozen=True)
class Row:
    """A score of both bundles and its limit; `old` is None if the old bundle is the reference."""

    name: str
    old: float | None
    new: float
    limit: str
    met: bool


@dataclass(frozen=True)
class Figures:
    """Scores of both bundles on held-out frames; `night` of them are at night.

    The masks are compared on the confident pixels of the old mask of the clean frame. `found` is
    the share of them on which the mask of the degraded frame agrees, `kept` the share on which the
    new mask of the clean frame agrees. `iou` is the mean IoU of all classes of the degraded frames'
    masks with the old masks of the clean frames, on all pixels. `sure` is the share of all pixels
    whose confidence is high enough. All four are in percent. `restored` is the PSNR in dB of
    restored degraded frames against the clean ones; None if all frames are night frames. `thermal`
    is the PSNR in dB of the new thermal estimate against the old one in the worst frame; 60 if they
    are identical.
    """

    frames: int
    night: int
    kept: float
    found_old: float
    found_new: float
    iou_old: float
    iou_new: float
    sure_old: float
    sure_new: float
    restored_old: float | None
    restored_new: float | None
    thermal: float

    def rows(self) -> list[Row]:
        """Return the scores with their limits."""
        better = self.found_new > self.found_old
        surest = f"at most {self.sure_old + MORE_SURE:.2f}"
        rows = [
            _at_least("clean frame, agreement %", None, self.kept, LEAST_KEPT),
            _at_least(
                "degraded frame, agreement %", self.found_old, self.found_new, self.found_old
            ),
            _at_least("degraded frame, mean IoU %", self.iou_old, self.iou_new, self.iou_old),
            Row(
                "sure pixels %",
                self.sure_old,
                self.sure_new,
                "none: agreement rose" if better else surest,
                better or self.sure_new <= self.sure_old + MORE_SURE,
            ),
            _at_least("thermal estimate, dB to the old", None, self.thermal, LEAST_THERMAL),
        ]
        if self.restored_old is not None and self.restored_new is not None:
            least = self.restored_old - RESTORED_LOSS
            name = "restored frame, dB to the clean"
            rows.append(_at_least(name, self.restored_old, self.restored_new, least))
        return rows

    def misses(self) -> list[str]:
        """Return the scores that miss their limits."""
        return [
            f"{row.name} is {row.new:.2f}, expected {row.limit}"
            for row in self.rows()
            if not row.met
        ]


def _at_least(name: str, old: float | None, new: float, least: float) -> Row:
    # As shown: a limit that is missed by less than its last digit would read as kept.
    return Row(name, old, new, f"at least {least:.2f}", round(new, 2) >= round(least, 2))


@dataclass
class _Counts:
    """Counts of one bundle: pixels, and PSNRs in dB."""

    sure: int = 0
    kept: int = 0
    found: int = 0
    restored: list[float] = field(default_factory=list)
    # The old clean mask is the truth, that of the degraded frame the prediction.
    confusion: Confusion = field(default_factory=lambda: Confusion(len(CLASSES)))


def compare(old: Fuser, new: Fuser, data: Path, size: tuple[int, int], confident: float) -> Figures:
    """Fuse the held-out frames of a data set with both bundles, clean and degraded.

    Args:
        old: the bundle that was adapted.
        new: the adapted bundle.
        data: the data set; see `frames.collect`.
        size: rows and columns of the networks' image.
        confident: least confidence, 0 to 1, of a confident pixel.
    """
    counts = (_Counts(), _Counts())
    pixels = asked = night = 0
    thermal: list[float] = []
    scenes = Scenes(dataset("folder"), data, HELD_OUT, *size)
    for number, record in enumerate(track(scenes.records, description="judging")):
        image, by_day = read_image(record.visible), scenes.is_clean(number)
        night += not by_day
        clean = [fuser(image, _OUTPUTS) for fuser in (old, new)]
        truth, trusted = given(clean[0].mask), sure(given(clean[0].confidence), confident)
        pixels += trusted.size
        before, after = (given(fused.thermal_estimate) for fused in clean)
        thermal.append(psnr(after, before))
        for count, fused in zip(counts, clean, strict=True):
            count.sure += int(sure(given(fused.confidence), confident).sum())
            count.kept += int(((given(fused.mask) == truth) & trusted).sum())
        for kind, strength in BY_DAY if by_day else AT_NIGHT:
            degraded = degrade(image, kind, strength, np.random.default_rng(number))
            asked += int(trusted.sum())
            for count, fuser in zip(counts, (old, new), strict=True):
                fused = fuser(degraded, _OUTPUTS)
                count.found += int(((given(fused.mask) == truth) & trusted).sum())
                count.confusion.add(truth, given(fused.mask))
                if by_day:
                    count.restored.append(psnr(given(fused.restored), image))
    first, second = counts
    return Figures(
        frames=len(scenes),
        night=night,
        kept=100 * second.kept / max(first.kept, 1),
        found_old=100 * first.found / max(asked, 1),
        found_new=100 * second.found / max(asked, 1),
        iou_old=first.confusion.mean_iou(),
        iou_new=second.confusion.mean_iou(),
        sure_old=100 * first.sure / pixels,
        sure_new=100 * second.sure / pixels,
        restored_old=fmean(first.restored) if first.restored else None,
        restored_new=fmean(second.restored) if second.restored else None,
        thermal=min(thermal),
    )
