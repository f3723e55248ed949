# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Compares images as fused ones: MagImg, simpler images, and those of other methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from magicfuse_ros.bundle import Manifest
from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_ros.thermal import PER_MEAN_ERROR
from magicfuse_training.arrays import U8
from magicfuse_training.data.classes import PEOPLE, RIDERS
from magicfuse_training.losses.config import HeatConfig
from magicfuse_training.metrics.bootstrap import Figure, figure_of, figures_of, share
from magicfuse_training.metrics.frames import Frame, given
from magicfuse_training.metrics.fusion import fusion_scores
from magicfuse_training.metrics.images import luma, psnr
from magicfuse_training.metrics.light import (
    count_light,
    is_lit,
    people_in_label,
    precision,
    recall,
    without_parked,
)
from magicfuse_training.metrics.peers import read_fused
from magicfuse_training.metrics.people import contrast
from magicfuse_training.preset import load_preset

INPUT, RESTORED, MEAN, CLIPPED, MAG_IMAGE = (
    "input",
    "restored",
    "mean of restored and thermal estimate",
    "restored + clipped heat",
    "MagImg",
)
OWN = (INPUT, RESTORED, MEAN, CLIPPED, MAG_IMAGE)
# The formula lights up more at a lower tau. Only its light is scored there.
LOWER_TAUS = {f"{CLIPPED}, tau {tau:g}": tau for tau in (0.5, 0.3)}
_WHITE = 255


def usual_heat() -> HeatConfig:
    """Return the heat for the row with clipped heat: preset `nano`'s, whatever bundle is scored."""
    heat = load_preset("nano").losses.heat
    assert heat is not None
    return heat


def mean_image(restored: U8, estimate: U8) -> U8:
    """Return the mean of a restored image (H, W, 3) and a thermal estimate (H, W), rounded up."""
    return np.asarray((restored.astype(np.uint16) + estimate[..., None] + 1) // 2, np.uint8)


def clipped_heat(
    fused: FusedFrame, heat: HeatConfig, thermal: Sequence[int], night: bool, tau: float
) -> U8:
    """Return the restored image (H, W, 3) with clipped heat: MagImg without a network F.

    This is the formula that F is taught in a preset with heat (`losses.image.fused_luma`), applied
    to the bundle's outputs. Where the mask calls a class of `thermal`, the luma gains `heat.gain`
    times the confident excess of the estimate over a street's level, at most `heat.limit`, scaled
    by the mask's confidence. At night (`night`) the gain is `heat.at_night` times as large, over a
    lower level. The higher `tau` (0 to 1), the surer the mask must be, as for MagImg.
    """
    estimate = given(fused.thermal_estimate).astype(np.float32) / _WHITE
    if fused.thermal_uncertainty is not None:  # see `losses.thermal.Estimate.surely`
        b = fused.thermal_uncertainty.astype(np.float32) / _WHITE / PER_MEAN_ERROR
        estimate -= np.log(2) * b
    warm, times = (heat.warm_at_night, heat.at_night) if night else (heat.warm, 1.0)
    sure = given(fused.confidence).astype(np.float32) / _WHITE * np.isin(given(fused.mask), thermal)
    taken = sure * (1 - tau) / (1 - heat.middle_tau)
    people = ((taken - heat.unlit) / (heat.lit - heat.unlit)).clip(0, 1)
    gained = people * (times * heat.gain * (estimate - warm)).clip(0, heat.limit)
    lit = given(fused.restored) + _WHITE * gained[..., None]
    return np.asarray(lit.clip(0, _WHITE).round(), np.uint8)


class Rows:
    """Scores of images as fused ones, by row: means over frames, with intervals.

    EN, SD, SF        of the image alone: see `fusion`
    SSIM, MI, Qabf, PSNR, VIF   against the visible frame before any degradation and the camera's
                                own thermal image, if a set has thermal images: see `fusion`
    PSNR to clean     by day: against the visible frame before any degradation, dB, 0 to 60
    person contrast   contrast of people in boxes divided by that in the real thermal image: see
                      `people_scores`
    light precision, light recall   of the images that light up the restored one, where people drew
                                    the label: see `light.Light`

    The rows are the input, the restored image, its mean with the thermal estimate, the restored
    image with clipped heat (`clipped_heat`), MagImg, and the images of other methods. The light of
    clipped heat is also scored at lower values of tau.
    """

    def __init__(
        self,
        manifest: Manifest,
        heat: HeatConfig,
        peers: Mapping[str, Mapping[str, Path]] | None = None,
        width_factor: int = 1,
    ) -> None:
        """Store what is needed to make the images.

        Args:
            manifest: the bundle's manifest.
            heat: heat of the row with clipped heat.
            peers: for each other method, its files by frame name: all frames have one.
            width_factor: see `DataSet`.
        """
        outputs: set[Output] = {"restored", "thermal_estimate", "mag_image", "mask", "confidence"}
        if manifest.thermal_uncertainty is not None:
            outputs.add("thermal_uncertainty")
        self.outputs: frozenset[Output] = frozenset(outputs)
        self._thermal = [c.id for c in manifest.classes if c.thermal]
        self._heat, self._peers, self._width_factor = heat, peers or {}, width_factor
        self._tau = manifest.tau
        self._values: dict[str, dict[str, list[float]]] = {}
        self._contrasts: dict[str, list[tuple[float, float]]] = {}
        self._riders = [c.id for c in manifest.classes if c.name in RIDERS]
        self._people = [c.id for c in manifest.classes if c.name in PEOPLE] + self._riders
        self._light: dict[str, list[tuple[int, ...]]] = {}

    def applies(self, frame: Frame) -> bool:
        """Return whether a frame can be scored: every frame can."""
        return True

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Score all rows of one frame."""
        clean = luma(frame.visible)
        sources = None if frame.thermal is None else (clean, frame.thermal)
        images = self.images(frame, image, fused)
        for row, shown in images.items():
            gray = luma(shown)
            scores = fusion_scores(gray, sources)
            if not frame.night:
                scores["PSNR to clean"] = psnr(shown, frame.visible)
            values = self._values.setdefault(row, defaultdict(list))
            for name, value in scores.items():
                values[name].append(value)
            if frame.people is not None:
                self._contrasts.setdefault(row, []).append(_contrasts(gray, frame))
        if frame.drawn:
            label = without_parked(frame, self._riders)
            people, known = people_in_label(label, self._people)
            lower = {
                row: self._clipped(frame, fused, tau)
                for row, tau in LOWER_TAUS.items()
                if tau < self._tau
            }
            for row, shown in ({r: images[r] for r in (CLIPPED, MAG_IMAGE)} | lower).items():
                lit = is_lit(shown, given(fused.restored))
                self._light.setdefault(row, []).append(count_light(lit, people, known))

    def images(self, frame: Frame, image: U8, fused: FusedFrame) -> dict[str, U8]:
        """Return the images of all rows, (H, W, 3) each."""
        restored, estimate = given(fused.restored), given(fused.thermal_estimate)
        own = {
            INPUT: image,
            RESTORED: restored,
            MEAN: mean_image(restored, estimate),
            CLIPPED: self._clipped(frame, fused, self._tau),
            MAG_IMAGE: given(fused.mag_image),
        }
        return own | {
            name: read_fused(files[frame.name], frame, self._width_factor)
            for name, files in self._peers.items()
        }

    def _clipped(self, frame: Frame, fused: FusedFrame, tau: float) -> U8:
        return clipped_heat(fused, self._heat, self._thermal, frame.night, tau)

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Return the scores by row."""
        rows = {row: figures_of(columns) for row, columns in self._values.items()}
        for row, sums in self._contrasts.items():
            rows[row]["person contrast"] = figure_of(sums, lambda m: share(m[:, 0], m[:, 1]))
        for row, counts in self._light.items():
            if any(count[3] for count in counts):
                light = rows.setdefault(row, {})
                light["light precision"] = figure_of(counts, precision)
                light["light recall"] = figure_of(counts, recall)
        return rows

    def scores(self) -> dict[str, object]:
        """Return the scores by row, if there are any."""
        rows = self.figures()
        return {"images": rows} if rows else {}


def _contrasts(gray: U8, frame: Frame) -> tuple[float, float]:
    """Return the summed contrast of a frame's people, and that in the real thermal image."""
    boxes, real = frame.people or [], given(frame.usual)
    pairs = [(contrast(gray, box, boxes), contrast(real, box, boxes)) for box in boxes]
    known = [(shown, there) for shown, there in pairs if shown is not None and there is not None]
    return sum(shown for shown, _ in known), sum(there for _, there in known)
