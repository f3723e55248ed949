# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The costs of int8: a bundle's int8 graphs against its float32 ones, on held-out data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser, Output
from magicfuse_training.arrays import U8
from magicfuse_training.data.files import read_image
from magicfuse_training.degradations import Degradation
from magicfuse_training.errors import ExportError
from magicfuse_training.metrics.frames import given
from magicfuse_training.metrics.images import psnr
from magicfuse_training.metrics.restoration import degraded
from magicfuse_training.metrics.score import camvid_label
from magicfuse_training.metrics.segmentation import Confusion
from magicfuse_training.quantization.calibration import CONDITIONS

OUTPUTS: tuple[Output, ...] = ("restored", "mask", "thermal_estimate", "mag_image")
PSNR_LOSS_DB, MIOU_LOSS, AGREEMENT_PERCENT = 0.3, 0.5, 98.0


@dataclass(frozen=True)
class Int8Loss:
    """Losses of int8 against float32 under one condition; a negative loss is a gain.

    Attributes:
        frames: number of frames.
        agreement_percent: share of pixels with the same class.
        psnr_loss_db: mean loss of the restored image against the clean frame; None if that is not
            known. On clean frames of another size than the bundle's, resizing hides the loss.
        miou_loss: in points; None if there are no labels.
        restored_db: mean PSNR of the restored image, int8 against float32.
        mag_image_db: the same of MagImg.
        thermal_db: the same of the thermal estimate.
    """

    frames: int
    agreement_percent: float
    psnr_loss_db: float | None
    miou_loss: float | None
    restored_db: float
    mag_image_db: float
    thermal_db: float

    def misses(self) -> list[str]:
        """Return the exceeded limits, in words."""
        found = []
        if self.agreement_percent < AGREEMENT_PERCENT:
            found.append(
                f"mask agreement is {self.agreement_percent:.2f} %, expected at least "
                f"{AGREEMENT_PERCENT:g}"
            )
        if self.psnr_loss_db is not None and self.psnr_loss_db > PSNR_LOSS_DB:
            found.append(
                f"restored PSNR falls by {self.psnr_loss_db:.2f} dB, expected at most "
                f"{PSNR_LOSS_DB}"
            )
        if self.miou_loss is not None and self.miou_loss > MIOU_LOSS:
            found.append(f"mIoU falls by {self.miou_loss:.2f}, expected at most {MIOU_LOSS}")
        return found


Losses = dict[str, Int8Loss]  # by "K = 1, CamVid val, dark" and the like


def measure_losses(bundle: Bundle, data: Path) -> Losses:
    """Compare int8 with float32 in OpenVINO, at every K: CamVid val, and MSRS dev as it is.

    Args:
        bundle: a bundle with int8 graphs.
        data: folder of repacked `camvid` and `msrs`.
    """
    exact, quantized = (Fuser(bundle, select("openvino", precision=p)) for p in ("fp32", "int8"))
    names = [c.name for c in bundle.manifest.classes]
    losses: Losses = {}
    for steps in sorted(bundle.manifest.step_grids):
        exact.steps = quantized.steps = steps
        for kind in CONDITIONS:
            where = f"K = {steps}, CamVid val, {kind}"
            losses[where] = _compare(
                exact, quantized, _camvid(data / "camvid", kind, names, where), len(names)
            )
        where = f"K = {steps}, MSRS dev"
        losses[where] = _compare(exact, quantized, _msrs(data / "msrs", where), len(names))
    return losses


def check_losses(losses: Losses, minimum_db: float) -> None:
    """Compare the losses with their limits.

    Raises:
        ExportError: names every condition and limit that is exceeded, and the remedy.
    """
    missed = [f"{where}: {miss}" for where, loss in losses.items() for miss in loss.misses()]
    if missed:
        raise ExportError(
            f"int8 costs too much: {'; '.join(missed)}. Nothing was written. --minimum-db is "
            f"{minimum_db:g}; a higher one keeps more layers in float32"
        )


def as_json(losses: Losses) -> dict[str, dict[str, float | int | None]]:
    """Return the losses as recorded in `bundle.json`."""
    return {
        where: {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(loss).items()}
        for where, loss in losses.items()
    }


LabelledFrame = tuple[U8, U8 | None, U8 | None]  # the camera's image; clean image; label


def _camvid(
    root: Path, kind: Degradation, names: list[str], description: str
) -> Iterator[LabelledFrame]:
    paths = sorted((root / "val" / "vi").glob("*.jpg"))
    for i, path in enumerate(track(paths, description=description)):
        clean = read_image(path)
        yield degraded(clean, kind, i), clean, camvid_label(root, "val", path.stem, names)


def _msrs(root: Path, description: str) -> Iterator[LabelledFrame]:
    for path in track(sorted((root / "dev" / "vi").glob("*.jpg")), description=description):
        yield read_image(path), None, None


def _compare(
    exact: Fuser, quantized: Fuser, frames: Iterator[LabelledFrame], classes: int
) -> Int8Loss:
    confusions = (Confusion(classes), Confusion(classes))
    restored: list[tuple[float, float]] = []
    agreement, pictures, mag_image, thermal = [], [], [], []
    labelled = False
    for image, clean, label in frames:
        a, b = (fuser(image, OUTPUTS) for fuser in (exact, quantized))
        agreement.append(float((given(a.mask) == given(b.mask)).mean()))
        pictures.append(psnr(given(b.restored), given(a.restored)))
        mag_image.append(psnr(given(b.mag_image), given(a.mag_image)))
        thermal.append(psnr(given(b.thermal_estimate), given(a.thermal_estimate)))
        if clean is not None:
            restored.append((psnr(given(a.restored), clean), psnr(given(b.restored), clean)))
        if label is not None:
            labelled = True
            for confusion, frame in zip(confusions, (a, b), strict=True):
                confusion.add(label, given(frame.mask))
    miou_loss = None
    if labelled:
        before, after = (confusion.mean_iou() for confusion in confusions)
        miou_loss = before - after
    return Int8Loss(
        frames=len(agreement),
        agreement_percent=100 * float(np.mean(agreement)),
        psnr_loss_db=float(np.mean([x - y for x, y in restored])) if restored else None,
        miou_loss=miou_loss,
        restored_db=float(np.mean(pictures)),
        mag_image_db=float(np.mean(mag_image)),
        thermal_db=float(np.mean(thermal)),
    )
