# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Scores of the models of `baselines`, and of two filters that nobody trains.

PSNR dark, haze             of the restored image against the clean one, CamVid val, dB
mIoU clean, dark, haze      of the masks, CamVid val, %
thermal PSNR, correlation   of the thermal estimate, MSRS dev, day and night: see `thermal.Thermal`
light precision, recall     of MagImg, clean CamVid val: see `light.Light`
MagImg dark                 PSNR of MagImg, like PSNR dark
GFLOP, parameters           of a frame: MagImg and mask, or the masks alone
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import FusedFrame, Fuser, Output
from magicfuse_training.arrays import U8
from magicfuse_training.cost import gflop_per_call, parameters
from magicfuse_training.metrics.bootstrap import is_known
from magicfuse_training.metrics.development import development_frames, measured
from magicfuse_training.metrics.frames import Measure
from magicfuse_training.metrics.light import Light
from magicfuse_training.metrics.restoration import CONDITIONS, Restoration
from magicfuse_training.metrics.rows import clipped_heat, usual_heat
from magicfuse_training.metrics.segmentation import Segmentation
from magicfuse_training.metrics.thermal import Thermal
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.baselines import BASELINES, Baseline

Row = dict[str, Any]
Fuse = Callable[[U8], FusedFrame]

METRICS = (
    "PSNR dark", "PSNR haze", "mIoU clean", "mIoU dark", "mIoU haze", "thermal PSNR",
    "thermal correlation", "light precision", "light recall", "MagImg dark",
)  # fmt: skip
_MIDDLE = 0.5  # the luma to which `gamma` brings the mean
_CLIP, _TILES = 2.0, (8, 8)  # CLAHE's usual settings
_IMAGES: frozenset[Output] = frozenset(
    {"restored", "mag_image", "mask", "confidence", "thermal_estimate", "thermal_uncertainty"}
)


def gamma(image: U8) -> U8:
    """Return an image (H, W, 3) raised to the power that brings its mean luma to the middle."""
    mean = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()) / 255
    power = np.log(_MIDDLE) / np.log(np.clip(mean, 1 / 255, 254 / 255))
    levels = 255 * (np.arange(256) / 255) ** power
    return np.asarray(cv2.LUT(image, levels.round().astype(np.uint8)), np.uint8)


def clahe(image: U8) -> U8:
    """Return an image (H, W, 3) with its lightness equalised (CLAHE), its colours as they were."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(_CLIP, _TILES).apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


FILTERS: Mapping[str, tuple[str, Callable[[U8], U8]]] = {
    "input": ("nothing is done", lambda image: image),
    "gamma": ("one power for each image", gamma),
    "CLAHE": ("local histograms of the lightness", clahe),
}


def score_filters(data: Path, preset: Preset, every: int) -> dict[str, Row]:
    """Score the filters as restorers, by name."""
    camvid, _ = development_frames(data, [c.name for c in preset.classes], every)
    rows: dict[str, Row] = {}
    for name, (about, restore) in FILTERS.items():

        def fuse(image: U8, restore: Callable[[U8], U8] = restore) -> FusedFrame:
            shown = restore(image)
            return FusedFrame(shown, shown, None, None, None, None, 0, {})

        scores: dict[str, Row] = {
            kind: measured(fuse, camvid, kind, [Restoration()])
            for kind in CONDITIONS
            if kind != "clean"
        }
        rows[name] = {"about": about, "GFLOP": None, "parameters": None} | _row(scores, {})
        del rows[name]["MagImg dark"]  # a filter has no MagImg
    return rows


def score_baseline(
    name: str, model: MagicFuse, bundle: Bundle, data: Path, every: int, tau: float
) -> dict[str, Row]:
    """Score a model of `BASELINES` by its bundle, through the vehicle's runtime.

    Args:
        name: its name.
        model: what the bundle was exported from.
        bundle: its bundle.
        data: folder of repacked camvid and msrs.
        every: n, to score every n-th frame.
        tau: tau of the formula: see `clipped_heat`.

    Returns:
        Its row and, for a model with a fusion network, a second row with the formula's MagImg.
    """
    baseline, names = BASELINES[name], [c.name for c in bundle.manifest.classes]
    fuser = Fuser(bundle, select("auto", bundle=bundle))
    outputs = _IMAGES & set(fuser.outputs) if baseline.images else frozenset[Output]({"mask"})
    camvid, msrs = development_frames(data, names, every)
    row = {"about": baseline.about} | _cost(baseline, model)
    thermal = [c.id for c in bundle.manifest.classes if c.thermal]

    def own(image: U8) -> FusedFrame:
        return fuser(image, outputs)

    def by_formula(image: U8) -> FusedFrame:
        fused = own(image)
        lit = clipped_heat(fused, usual_heat(), thermal, night=False, tau=tau)
        return replace(fused, mag_image=lit)

    def scores(fuse: Fuse) -> Row:
        by_day: dict[str, Row] = {}
        for kind in CONDITIONS:
            measures: list[Measure] = [Segmentation(names)]
            if baseline.images:
                measures += [Restoration(), Light(names)]
            by_day[kind] = measured(fuse, camvid, kind, measures)
        if not baseline.images:
            return _row(by_day, {})
        thermal_too = Thermal(bundle.manifest.thermal_uncertainty is not None)
        return _row(by_day, measured(fuse, msrs, "clean", [thermal_too]))

    if not baseline.fuses:
        return {name: row | scores(by_formula if baseline.images else own)}
    decoded = replace(baseline, calls={"decoder": 2})  # restored image and thermal estimate
    formula = {"about": "the same model, but MagImg by the formula"} | _cost(decoded, model)
    return {name: row | scores(own), f"{name}, formula": row | formula | scores(by_formula)}


def as_table(result: Row) -> str:
    """Return the comparison as Markdown."""
    crops = result["steps"] * result["batch"]
    lines = [
        f"{result['steps']} steps of {result['batch']} crops ({crops:,}) from random weights, seed "
        f"{result['seed']}; one frame in {result['every']} of CamVid val and MSRS dev.",
        "",
        f"| model | what | {' | '.join((*METRICS, 'GFLOP', 'parameters'))} |",
        f"|{' --- |' * (len(METRICS) + 4)}",
    ]
    for name, row in result["models"].items():
        cells = ["" if (v := row.get(m)) is None else f"{v:.3g}" for m in (*METRICS, "GFLOP")]
        count = "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M"
        lines.append(f"| {name} | {row['about']} | {' | '.join([*cells, count])} |")
    return "\n".join(lines) + "\n"


def _cost(baseline: Baseline, model: MagicFuse) -> Row:
    costs = gflop_per_call(model)
    calls = {name: baseline.calls.get(name, 1) for name in costs}
    return {
        "GFLOP": sum(calls[name] * gflop for name, gflop in costs.items()),
        "parameters": sum(parameters(model.get_submodule(n)) for n, k in calls.items() if k),
    }


def _row(by_day: Mapping[str, Row], msrs: Row) -> Row:
    dark, thermal = by_day["dark"], msrs.get("thermal", {})
    found = {
        **{f"PSNR {kind}": by_day[kind].get("psnr_restored_db") for kind in ("dark", "haze")},
        **{f"mIoU {kind}": scores.get("miou_percent") for kind, scores in by_day.items()},
        "thermal PSNR": thermal.get("psnr_estimate_db"),
        "thermal correlation": thermal.get("correlation_estimate"),
        **{
            f"light {k}": by_day.get("clean", {}).get(f"light_{k}") for k in ("precision", "recall")
        },
        "MagImg dark": dark.get("psnr_mag_image_db"),
    }
    return {name: figure.value for name, figure in found.items() if is_known(figure)}
