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
from typing import Any

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.metrics.bootstrap import Figure, is_known
from magicfuse_training.metrics.development import development_frames, measured
from magicfuse_training.metrics.frames import Frames, Measure
from magicfuse_training.metrics.restoration import Condition
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
    camvid, msrs = development_frames(data, [c.name for c in bundle.manifest.classes], every)
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
    camvid, msrs = development_frames(data, [c.name for c in bundle.manifest.classes], every)
    masks: Scores = {}
    sweep: dict[str, Scores] = {}
    for tau in taus:
        fuser.tau = tau
        if not masks or fuser.steps > 1:
            masks = _score_masks(fuser, bundle, camvid)
        sweep[str(tau)] = _score_images(fuser, bundle, msrs, camvid)[MAG_IMAGE] | masks
    return sweep


def _score_images(fuser: Fuser, bundle: Bundle, msrs: Frames, camvid: Frames) -> dict[str, Scores]:
    def images(frames: Frames, kind: Condition) -> dict[str, dict[str, Figure]]:
        rows: dict[str, dict[str, Figure]]
        rows = _score(fuser, frames, kind, Rows(bundle.manifest, usual_heat()))["images"]
        return rows

    as_they_are, dark = images(msrs, "clean"), images(camvid, "dark")
    return {
        row: {
            **{name: _number(as_they_are[row].get(name)) for name in IMAGE_METRICS},
            "PSNR dark": _number(dark[row].get(_DARK)),
        }
        for row in OWN
    }


def _score_masks(fuser: Fuser, bundle: Bundle, camvid: Frames) -> Scores:
    names = [c.name for c in bundle.manifest.classes]
    conditions: tuple[Condition, ...] = ("clean", "dark")
    return {
        name: _number(_score(fuser, camvid, kind, Segmentation(names)).get("miou_percent"))
        for name, kind in zip(MASK_METRICS, conditions, strict=True)
    }


def _score(fuser: Fuser, frames: Frames, kind: Condition, measure: Measure) -> dict[str, Any]:
    return measured(lambda image: fuser(image, measure.outputs), frames, kind, [measure])


def _number(score: object) -> float | None:
    return score.value if is_known(score) else None
