# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Labels a bundle's own training frames wherever its mask is confident."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import track

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import UNLABELED, Bundle
from magicfuse_ros.fuser import FusedFrame, Fuser
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.output_files import write_png
from magicfuse_training.arrays import Mask
from magicfuse_training.atomic import replaced
from magicfuse_training.data.files import read_image

Fuse = Callable[[Pixels], FusedFrame]


def label_frames(bundle: Path, backend: str, folder: Path, confident: float) -> None:
    """Write label/NAME.png for every vi/NAME.png of `folder` that has no label yet.

    Call this in a process of its own: a training process forks, and the threads of inference
    libraries do not survive a fork.

    Args:
        bundle: folder of the bundle, run in float32.
        backend: see `backends.select`.
        folder: folder of the split.
        confident: see `pseudo_label`.

    Raises:
        MagicFuseError: if the bundle cannot run, or a file cannot be read or written.
    """
    if not (waiting := unlabelled(folder)):
        return
    fuser = Fuser(Bundle.load(bundle), select(backend, precision="fp32"))

    def fuse(image: Pixels) -> FusedFrame:
        return fuser(image, ("mask", "confidence"))

    for path in track(waiting, description="labelling frames"):
        label = pseudo_label(fuse, read_image(path), confident)
        with replaced(label_path(path)) as partial:
            write_png(partial, label)


def unlabelled(folder: Path) -> list[Path]:
    """Return the frames of a split that have no label yet."""
    return [path for path in sorted((folder / "vi").iterdir()) if not label_path(path).exists()]


def label_path(frame: Path) -> Path:
    """Return the path of a frame's label."""
    return frame.parent.parent / "label" / frame.name


def pseudo_label(fuse: Fuse, image: Pixels, confident: float) -> Pixels:
    """Return the mask of an image, (H, W) uint8, with UNLABELED where it is not reliable.

    A pixel is reliable if its confidence is at least `confident`, 0 to 1, and the mask of the
    mirrored image agrees. A network is rarely confident of both by chance.
    """
    frame = fuse(image)
    mirrored = fuse(np.ascontiguousarray(image[:, ::-1])).mask
    assert frame.mask is not None and frame.confidence is not None and mirrored is not None
    trusted = sure(frame.confidence, confident) & (frame.mask == mirrored[:, ::-1])
    return np.asarray(np.where(trusted, frame.mask, UNLABELED), np.uint8)


def sure(confidence: Pixels, confident: float) -> Mask:
    """Return where a confidence (H, W), 0 to 255, is at least `confident`, 0 to 1: bool (H, W)."""
    return np.asarray(confidence >= round(255 * confident))


def labelled_share(folder: Path) -> float:
    """Return the share of a split's pixels that have a label, 0 to 1."""
    shares = [
        float((read_image(path, gray=True) != UNLABELED).mean())
        for path in sorted((folder / "label").glob("*.png"))
    ]
    return float(np.mean(shares))
