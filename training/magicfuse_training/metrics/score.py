"""Scores of a bundle on held-out data, measured through the vehicle's own runtime.

What the numbers mean:
    restored        PSNR of darkened, hazy and clean CamVid val against the clean frame
    thermal         PSNR and SSIM on MSRS dev against the real thermal image, beside baselines: the
                    gray visible image, and the constant images that are best in PSNR and in SSIM,
                    chosen on dev itself
    person contrast mean inside a human infrared person box minus mean of a ring around it,
                    summed over boxes: thermal estimate, visible image and MagImg, each divided by
                    that of the real thermal image
    mIoU            CamVid val, the bundle's classes that occur there, human masks, at the frames'
                    own size
    pedestrians     share of the pixels called pedestrian that lie in a human person box
    night           mean luma of real night frames before and after
    flicker         mean |difference| between two outputs of one scene under two noise draws, 0..255
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from magicfuse_ros.fuser import Fuser
from magicfuse_ros.media.degradations import Degradation, degrade
from magicfuse_training.data.classes import CAMVID, IGNORE, PEOPLE, to_classes
from magicfuse_training.data.scenes import read_image
from magicfuse_training.metrics.people import area, contrast, people

U8 = npt.NDArray[np.uint8]
CONDITIONS: tuple[Degradation, ...] = ("clean", "dark", "haze")
STRENGTHS = (0.5, 0.75, 1.0)  # of degradations, in turn: mild to severe, the same in every run


def psnr(a: U8, b: U8) -> float:
    """Return the PSNR in dB of two uint8 images, capped at 60 (identical images)."""
    value = peak_signal_noise_ratio(_tensor(a), _tensor(b), data_range=1.0)
    return min(float(value), 60.0)


def ssim(a: U8, b: U8) -> float:
    """Return the SSIM of two gray uint8 images (H, W)."""
    value = structural_similarity_index_measure(_tensor(a), _tensor(b), data_range=1.0)
    return float(value)  # type: ignore[arg-type]


def _tensor(image: U8) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(image)).float() / 255
    return x[None, None] if image.ndim == 2 else x.permute(2, 0, 1)[None]


class Confusion:
    """A confusion matrix; rows are the truth."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matrix = np.zeros((classes, classes), np.int64)

    def add(self, truth: U8, predicted: U8) -> None:
        """Count the pixels of one frame; truth 255 is left out."""
        known = truth != IGNORE
        index = truth[known].astype(np.int64) * self.classes + predicted[known]
        self.matrix += np.bincount(index, minlength=self.classes**2).reshape(self.matrix.shape)

    def iou(self) -> npt.NDArray[np.float64]:
        """Return the intersection over union of every class, in percent; NaN where none is true."""
        hit, true = np.diag(self.matrix), self.matrix.sum(1)
        union = np.maximum(self.matrix.sum(0) + true - hit, 1)
        return np.asarray(np.where(true, 100 * hit / union, np.nan), np.float64)


def camvid_label(root: Path, split: str, stem: str, names: Sequence[str]) -> U8:
    """Return the mask of a frame of repacked CamVid, in the ids of `names`: see `to_classes`."""
    path = root / split / "label" / f"{stem}.png"
    return to_classes(CAMVID, read_image(path, gray=True), path, names)


def score_camvid(
    fuser: Fuser,
    root: Path,
    names: Sequence[str],
    split: str = "val",
    every: int = 1,
    conditions: Sequence[Degradation] = CONDITIONS,
) -> dict[str, Any]:
    """Score restoration and segmentation on CamVid under some conditions, on every n-th frame.

    `names` are the bundle's classes.
    """
    result: dict[str, Any] = {}
    paths = sorted((root / split / "vi").glob("*.jpg"))[::every]
    for kind in conditions:
        confusion = Confusion(len(names))
        before, after, fused, flicker, noise = [], [], [], [], []
        for i, path in enumerate(track(paths, description=f"CamVid {split}, {kind}")):
            clean = read_image(path)
            strength = STRENGTHS[i % len(STRENGTHS)]
            image = degrade(clean, kind, strength, np.random.default_rng(i))
            frame = fuser(image, ("restored", "mag_image", "mask"))
            assert frame.restored is not None and frame.mask is not None
            assert frame.mag_image is not None
            before.append(psnr(image, clean))
            after.append(psnr(frame.restored, clean))
            fused.append(psnr(frame.mag_image, clean))
            confusion.add(camvid_label(root, split, path.stem, names), frame.mask)
            if kind == "dark" and i % 10 == 0:
                a, b = _two_draws(clean, strength, i)
                noise.append(_difference(a, b))
                flicker.append(_difference(_mag(fuser, a), _mag(fuser, b)))
        iou = confusion.iou()
        result[kind] = {
            "frames": len(paths),
            "psnr_input_db": float(np.mean(before)),
            "psnr_restored_db": float(np.mean(after)),
            "psnr_mag_image_db": float(np.mean(fused)),
            "miou_percent": float(np.nanmean(iou)),
            "iou_percent": {
                n: round(float(v), 1) for n, v in zip(names, iou, strict=True) if not np.isnan(v)
            },
        }
        if flicker:
            result[kind]["flicker_input"] = float(np.mean(noise))
            result[kind]["flicker_mag_image"] = float(np.mean(flicker))
    return result


def _two_draws(clean: U8, strength: float, seed: int) -> tuple[U8, U8]:
    """Return one scene twice: the exposure is the same, only the photons differ."""
    first, second = (
        degrade(
            clean,
            "dark",
            strength,
            np.random.default_rng(seed),
            sensor=np.random.default_rng([seed, draw]),
        )
        for draw in range(2)
    )
    return first, second


def _mag(fuser: Fuser, image: U8) -> U8:
    frame = fuser(image, frozenset({"mag_image"}))
    assert frame.mag_image is not None
    return frame.mag_image


def _difference(a: U8, b: U8) -> float:
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())


def score_msrs(
    fuser: Fuser, root: Path, names: Sequence[str], split: str = "dev"
) -> dict[str, Any]:
    """Score the thermal estimate, people and brightness on MSRS, by day, by night, people on both.

    `names` are the bundle's classes; people are one of them.
    """
    person = next(i for i, name in enumerate(names) if name in PEOPLE)
    paths = sorted((root / split / "vi").glob("*.jpg"))
    by_time = {
        "day": [p for p in paths if p.stem.endswith("D")],
        "night": [p for p in paths if p.stem.endswith("N")],
    }
    scores = {
        name: _score_msrs(fuser, root / split, some, name, person) for name, some in by_time.items()
    }
    return {**scores, "both": people_on_all(list(scores.values()))}


def _score_msrs(
    fuser: Fuser, folder: Path, paths: list[Path], name: str, person_id: int
) -> dict[str, Any]:
    reals, estimates, grays, lumas = [], [], [], []
    contrast_real = 0.0
    contrasts = dict.fromkeys(("thermal_estimate", "visible", "mag_image"), 0.0)
    called = called_inside = boxes = found = 0
    for path in track(paths, description=f"MSRS dev, {name}"):
        visible = read_image(path)
        real = read_image(folder / "ir" / path.name, gray=True)
        frame = fuser(visible)
        assert frame.thermal_estimate is not None and frame.mask is not None
        assert frame.restored is not None and frame.mag_image is not None
        estimate = frame.thermal_estimate
        reals.append(real)
        estimates.append(estimate)
        grays.append(_gray(visible))
        shown = [_gray(x) for x in (visible, frame.restored, frame.mag_image)]
        lumas.append([x.mean() for x in shown])
        infrared = people(folder, "infrared", path.stem, real.shape)
        for box in infrared:
            real_contrast = contrast(real, box, infrared)
            if real_contrast is not None:
                contrast_real += real_contrast
                for which, image in zip(contrasts, (estimate, shown[0], shown[2]), strict=True):
                    contrasts[which] += contrast(image, box, infrared) or 0.0
        person = frame.mask == person_id
        inside = np.zeros(real.shape, bool)
        for kind in ("infrared", "visible", "fusion"):
            for box in people(folder, kind, path.stem, real.shape):
                inside[area(box)] = True
        called += int(person.sum())
        called_inside += int((person & inside).sum())
        boxes += len(infrared)
        found += sum(float(person[area(b)].mean()) >= 0.1 for b in infrared)
    luma = np.mean(lumas, axis=0)
    return {
        "frames": len(paths),
        "thermal_estimate": _means(psnr, ssim, estimates, reals),
        "gray_visible": _means(psnr, ssim, grays, reals),
        "constant_of_best_psnr": best_constant(psnr, reals),
        "constant_of_best_ssim": best_constant(ssim, reals),
        "person_contrast": {k: v / max(contrast_real, 1e-6) for k, v in contrasts.items()},
        "person_contrast_real": contrast_real,  # summed over the boxes, of 255
        "pedestrian_pixels": called,
        "pedestrian_pixels_in_person_box_percent": 100 * called_inside / max(called, 1),
        "person_boxes": boxes,
        "person_boxes_found_percent": 100 * found / max(boxes, 1),
        "luma": dict(zip(("visible", "restored", "mag_image"), map(float, luma), strict=True)),
    }


def people_on_all(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of people over all frames of several parts of a set."""

    def mean(values: list[float], weight: str) -> float:
        weights = [part[weight] for part in parts]
        total = sum(v * w for v, w in zip(values, weights, strict=True))
        return float(total / max(sum(weights), 1e-6))

    inside, found = "pedestrian_pixels_in_person_box_percent", "person_boxes_found_percent"
    return {
        "person_contrast": {
            key: mean([part["person_contrast"][key] for part in parts], "person_contrast_real")
            for key in parts[0]["person_contrast"]
        },
        inside: mean([part[inside] for part in parts], "pedestrian_pixels"),
        found: mean([part[found] for part in parts], "person_boxes"),
    }


Metric = Callable[[U8, U8], float]


def _means(p: Metric, s: Metric, images: list[U8], reals: list[U8]) -> dict[str, float]:
    pairs = list(zip(images, reals, strict=True))
    return {
        "psnr_db": float(np.mean([p(a, b) for a, b in pairs])),
        "ssim": float(np.mean([s(a, b) for a, b in pairs])),
    }


def best_constant(metric: Metric, reals: list[U8]) -> dict[str, float]:
    """Return level, PSNR and SSIM of the constant image that is best by a metric, to 2 of 255."""
    near = max(range(0, 256, 15), key=lambda level: _constant(metric, level, reals))
    levels = range(max(near - 14, 0), min(near + 15, 256), 2)
    best = max(levels, key=lambda level: _constant(metric, level, reals))
    scores = {"psnr_db": _constant(psnr, best, reals), "ssim": _constant(ssim, best, reals)}
    return {"level": float(best), **scores}


def _constant(metric: Metric, level: int, reals: Iterable[U8]) -> float:
    return float(np.mean([metric(np.full_like(real, level), real) for real in reals]))


def _gray(image: U8) -> U8:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
