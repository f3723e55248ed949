"""How good MagImg is as a fused image, against the real thermal image of the same scene.

EN    Shannon entropy of the gray values, bits (10.1117/1.2945910)
SD    standard deviation of the gray values, 0 to 255
SF    spatial frequency: root mean square of the row and column differences, 0 to 255
VIF   visual information fidelity (10.1109/TIP.2005.859378) of MagImg for the visible image plus
      that for the thermal one
person contrast   MagImg's contrast of people in the infrared boxes, over the thermal image's
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torchmetrics.functional.image import visual_information_fidelity

from magicfuse_ros.fuser import Fuser
from magicfuse_training.data.scenes import read_image
from magicfuse_training.metrics.people import contrast, people

U8 = npt.NDArray[np.uint8]


def entropy(gray: U8) -> float:
    """Return the Shannon entropy of a gray image (H, W) in bits, 0 to 8."""
    p = np.bincount(gray.ravel(), minlength=256) / gray.size
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def spatial_frequency(gray: U8) -> float:
    """Return the root mean square of horizontal and vertical differences, 0 to 255."""
    x = gray.astype(np.float64)
    rows, columns = np.diff(x, axis=1), np.diff(x, axis=0)
    return float(np.sqrt((rows**2).mean() + (columns**2).mean()))


def vif(image: U8, reference: U8) -> float:
    """Return the visual information fidelity of a gray image for a reference, about 0 to 1."""
    a, b = (torch.from_numpy(x).float()[None, None] for x in (image, reference))
    return float(visual_information_fidelity(a, b))


def score_fusion(fuser: Fuser, folder: Path, stems: Iterable[str]) -> dict[str, float]:
    """Score MagImg on scenes of an MSRS split: means over the scenes."""
    rows: list[tuple[float, float, float, float]] = []
    real_contrast = fused_contrast = 0.0
    for stem in track(list(stems), description="MSRS, fusion"):
        visible = read_image(folder / "vi" / f"{stem}.jpg")
        thermal = read_image(folder / "ir" / f"{stem}.jpg", gray=True)
        frame = fuser(visible, frozenset({"mag_image"}))
        assert frame.mag_image is not None
        fused = _gray(frame.mag_image)
        fidelity = vif(fused, _gray(visible)) + vif(fused, thermal)
        rows.append((entropy(fused), float(fused.std()), spatial_frequency(fused), fidelity))
        boxes = people(folder, "infrared", stem, thermal.shape)
        for box in boxes:
            real = contrast(thermal, box, boxes)
            if real is not None:
                real_contrast += real
                fused_contrast += contrast(fused, box, boxes) or 0.0
    means = dict(zip(("EN", "SD", "SF", "VIF"), np.mean(rows, axis=0).tolist(), strict=True))
    return means | {"person contrast": fused_contrast / max(real_contrast, 1e-6)}


def _gray(image: U8) -> U8:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
