"""Scores of an ablated model, through the vehicle's own runtime.

The columns of MagImg are means over MSRS dev (see `fusion`), those of the masks are over CamVid val
(see `score`). `PSNR dark` is that of MagImg of a darkened CamVid frame against the clean frame, in
dB: how much of the scene comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.media.degradations import Degradation
from magicfuse_training.data.mix import Source
from magicfuse_training.data.scenes import read_image
from magicfuse_training.metrics.bootstrap import Figure
from magicfuse_training.metrics.frames import Frames, given
from magicfuse_training.metrics.fusion import score_fusion
from magicfuse_training.metrics.images import psnr
from magicfuse_training.metrics.restoration import degraded
from magicfuse_training.metrics.segmentation import Segmentation

Scores = dict[str, float | None]


def score_model(bundle: Bundle, data: Path, every: int, masks: bool) -> Scores:
    """Score a bundle on every n-th frame of MSRS dev and CamVid val.

    Args:
        bundle: of the model.
        data: folder of repacked camvid and msrs.
        every: n.
        masks: whether the model's masks mean anything; otherwise their scores are None.
    """
    fuser = Fuser(bundle, select("auto"))
    scores = _score_images(fuser, data, every) | {"mIoU clean": None, "mIoU dark": None}
    if masks:
        names = [c.name for c in bundle.manifest.classes]
        camvid = Frames(Source("camvid-repacked", data / "camvid"), names, every)
        scores |= _score_masks(fuser, camvid, names)
    return scores


def sweep_tau(bundle: Bundle, data: Path, every: int, taus: Iterable[float]) -> dict[str, Scores]:
    """Score MagImg at several tau, by tau; masks of a single step do not depend on it."""
    fuser = Fuser(bundle, select("auto"))
    sweep: dict[str, Scores] = {}
    for tau in taus:
        fuser.tau = tau
        sweep[str(tau)] = _score_images(fuser, data, every)
    return sweep


def _score_images(fuser: Fuser, data: Path, every: int) -> Scores:
    folder = data / "msrs" / "dev"
    stems = [p.stem for p in sorted((folder / "vi").glob("*.jpg"))][::every]
    scores: Scores = {**score_fusion(fuser, folder, stems)}
    return scores | {"PSNR dark": _psnr_of_darkened(fuser, data / "camvid" / "val" / "vi", every)}


def _score_masks(fuser: Fuser, frames: Frames, names: Sequence[str]) -> Scores:
    conditions: tuple[Degradation, ...] = ("clean", "dark")
    measures = {kind: Segmentation(names) for kind in conditions}
    for frame in track(frames, description="CamVid val, masks"):
        for kind, measure in measures.items():
            image = degraded(frame.visible, kind, frame.index)
            measure.add(frame, image, fuser(image, measure.outputs))
    figures = {kind: measure.scores().get("miou_percent") for kind, measure in measures.items()}
    return {f"mIoU {k}": f.value if isinstance(f, Figure) else None for k, f in figures.items()}


def _psnr_of_darkened(fuser: Fuser, folder: Path, every: int) -> float:
    values = []
    paths = sorted(folder.glob("*.jpg"))[::every]
    for i, path in enumerate(track(paths, description="CamVid val, dark, MagImg")):
        clean = read_image(path)
        frame = fuser(degraded(clean, "dark", i), frozenset({"mag_image"}))
        values.append(psnr(given(frame.mag_image), clean))
    return float(np.mean(values))
