# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Scores of an ablated model, through the vehicle's own runtime.

The image columns are means over MSRS dev, with day and night frames as they are (see `rows.Rows`).
`PSNR dark` compares restored darkened CamVid val frames with the clean ones, in dB: how much of the
scene is recovered. The mask columns are over CamVid val (see `score`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.progress import track

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.data.mix import Source
from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.frames import Frames, Measure
from magicfuse_training.metrics.restoration import Condition, degraded
from magicfuse_training.metrics.rows import MAG_IMAGE, OWN, Rows, usual_heat
from magicfuse_training.metrics.segmentation import Segmentation

Scores = dict[str, float | None]

IMAGE_METRICS = (
    "EN", "SD", "SF", "SSIM", "MI", "Qabf", "PSNR", "VIF", "person contrast", "PSNR dark",
)  # fmt: skip
MASK_METRICS = ("mIoU clean", "mIoU dark")
_DARK = "PSNR to clean"  # its name in `Rows`


def score_model(bundle: Bundle, data: Path, every: int, masks: bool) -> dict[str, Scores]:
    """Score a bundle on every n-th frame of MSRS dev and CamVid val.

    Args:
        bundle: the model's bundle.
        data: folder of repacked camvid and msrs.
        every: n.
        masks: whether the model's masks are meaningful; if not, their scores are None.

    Returns:
        The scores of MagImg and of the images next to it, by row (see `Rows`); mask scores are
        MagImg's.
    """
    fuser = Fuser(bundle, select("auto", bundle=bundle))
    camvid, msrs = (_frames(bundle, data / name, every) for name in ("camvid", "msrs"))
    rows = _score_images(fuser, bundle, msrs, camvid)
    none: Scores = dict.fromkeys(MASK_METRICS)
    scores = {name: row | none for name, row in rows.items()}
    if masks:
        scores[MAG_IMAGE] |= _score_masks(fuser, bundle, camvid)
    return scores


def sweep_tau(bundle: Bundle, data: Path, every: int, taus: Iterable[float]) -> dict[str, Scores]:
    """Score MagImg and masks at several tau, by tau.

    At K = 1, masks do not depend on tau: M of Eq. 11 comes from the state just updated.
    """
    fuser = Fuser(bundle, select("auto", bundle=bundle))
    camvid, msrs = (_frames(bundle, data / name, every) for name in ("camvid", "msrs"))
    masks: Scores = {}
    sweep: dict[str, Scores] = {}
    for tau in taus:
        fuser.tau = tau
        if not masks or fuser.steps > 1:
            masks = _score_masks(fuser, bundle, camvid)
        sweep[str(tau)] = _score_images(fuser, bundle, msrs, camvid)[MAG_IMAGE] | masks
    return sweep


def _frames(bundle: Bundle, root: Path, every: int) -> Frames:
    names = [c.name for c in bundle.manifest.classes]
    return Frames(Source(f"{root.name}-repacked", root), names, every)


def _score_images(fuser: Fuser, bundle: Bundle, msrs: Frames, camvid: Frames) -> dict[str, Scores]:
    images, dark = (Rows(bundle.manifest, usual_heat()) for _ in range(2))
    _measure(fuser, msrs, "clean", [images])
    _measure(fuser, camvid, "dark", [dark])
    by_day, in_the_dark = images.figures(), dark.figures()
    return {
        row: {
            **{name: _number(by_day[row].get(name)) for name in IMAGE_METRICS},
            "PSNR dark": _number(in_the_dark[row].get(_DARK)),
        }
        for row in OWN
    }


def _score_masks(fuser: Fuser, bundle: Bundle, camvid: Frames) -> Scores:
    scores: Scores = {}
    conditions: tuple[Condition, ...] = ("clean", "dark")
    for name, kind in zip(MASK_METRICS, conditions, strict=True):
        measure = Segmentation([c.name for c in bundle.manifest.classes])
        _measure(fuser, camvid, kind, [measure])
        figure = measure.scores().get("miou_percent")
        scores[name] = _number(figure) if isinstance(figure, Figure) else None
    return scores


def _measure(fuser: Fuser, frames: Frames, kind: Condition, measures: list[Measure]) -> None:
    """Measure every frame of a set: day frames under a condition, night frames as they are."""
    for frame in track(frames, description=f"{frames.data.kind}, {kind}"):
        image = frame.visible if frame.night else degraded(frame.visible, kind, frame.index)
        for measure in measures:
            measure.add(frame, image, fuser(image, measure.outputs))


def _number(figure: Figure | None) -> float | None:
    return None if figure is None or np.isnan(figure.value) else figure.value
