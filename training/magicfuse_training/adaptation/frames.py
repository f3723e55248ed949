# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Selects frames from a recording and saves them as a data set without labels.

A recording is cut into as many equal parts as frames are wanted. The first usable frame of each
part is kept. Black, saturated and blurred frames are skipped. So is a frame that looks like the
previous kept one, because the car stood still. The kept frames are therefore spread over the whole
recording, in order.

The last frames by day and the last frames at night are held out, in proportion: a drive from the
afternoon into the night is then judged in both kinds of light.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.input_checks import InputChecks
from magicfuse_ros.media import Source
from magicfuse_ros.output_files import write_png
from magicfuse_training.adaptation.config import AdaptConfig
from magicfuse_training.arrays import F32
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.scenes import is_night
from magicfuse_training.errors import TrainingError

TRAIN, HELD_OUT = "train", "dev"  # splits of the data set
SELECTION = "selection.json"
ALIKE = 0.02  # mean difference of two thumbnails over their mean level; below: the car stood still
LEAST_ALIKE = 0.3  # gray levels: at night, sensor noise alone gives 0.14
_THUMBNAIL = (32, 24)  # columns, rows
_ALIKE_FAULT = "alike"
_BESIDE = "beside a held-out frame"  # it may show the same place


@dataclass(frozen=True)
class Selection:
    """What was taken from a recording.

    Attributes:
        read: frames that could be read.
        train: frames kept for training.
        held_out: frames kept for the check.
        left_out: number of skipped frames by reason.
        refused: frames that could not be read.
    """

    read: int
    train: int
    held_out: int
    left_out: dict[str, int]
    refused: int


def kept_selection(folder: Path) -> Selection:
    """Return what `collect` took, read from its folder."""
    values: dict[str, Any] = json.loads((folder / SELECTION).read_text(encoding="utf-8"))
    return Selection(**values)


def collect(source: Source, folder: Path, size: tuple[int, int], config: AdaptConfig) -> None:
    """Save frames of a recording in a new folder; a kill leaves the folder complete or absent.

    The folder holds train/vi/ and dev/vi/ with PNG files. Each file is named after the frame's
    number in the recording and is no larger than `size` (rows, columns).

    Raises:
        TrainingError: if too few frames are usable.
        MediaError: if a file cannot be written.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    kept: list[Path] = []
    nights: list[bool] = []
    chosen = Chosen(source, config.frames)
    for number, image in chosen:
        kept.append(partial / TRAIN / "vi" / f"{number:06d}.png")
        small = shrunk(image, size)
        write_png(kept[-1], small)
        nights.append(is_night(dataset("folder"), kept[-1].stem, small))
    if len(kept) < config.least:
        shutil.rmtree(partial, ignore_errors=True)
        left_out = ", ".join(f"{count} {reason}" for reason, count in chosen.left_out.items())
        raise TrainingError(
            f"'{source.name}' holds {len(kept)} usable frames of {chosen.read}; expected at least "
            f"{config.least} (left out: {left_out or 'none'}; unreadable: {len(source.refused)})"
        )
    held_out = held_out_of(nights, config)
    (partial / HELD_OUT / "vi").mkdir(parents=True)
    for i, path in enumerate(kept):
        if i in held_out:
            os.replace(path, partial / HELD_OUT / "vi" / path.name)
        elif {i - 1, i + 1} & held_out:
            path.unlink()
            chosen.left_out[_BESIDE] += 1
    train = len(kept) - len(held_out) - chosen.left_out[_BESIDE]
    selection = Selection(
        chosen.read, train, len(held_out), dict(chosen.left_out), len(source.refused)
    )
    text = json.dumps(asdict(selection), indent=2) + "\n"
    (partial / SELECTION).write_text(text, encoding="utf-8")
    os.replace(partial, folder)


class Chosen:
    """Iterates once over the selected frames of a source, numbered from 0 as they are read.

    Attributes:
        read: frames read so far.
        left_out: number of skipped frames by reason.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self.read = 0
        self.left_out: Counter[str] = Counter()
        self._source = source
        self._limit = limit

    def __iter__(self) -> Iterator[tuple[int, Pixels]]:
        """Yield a frame's number and its image (H, W, 3) RGB uint8."""
        announced = len(self._source)
        parts = min(self._limit, announced)
        next_part = 0
        last: F32 | None = None
        for number, frame in enumerate(
            track(self._source, description="reading frames", total=announced)
        ):
            self.read = number + 1
            part = min(number * parts // announced, parts - 1)
            if part < next_part:
                continue  # this part of the recording already has its frame
            small = thumbnail(frame.image)
            faults = list(InputChecks().add(frame.image, now=0.0).faults())
            if not faults and last is not None and alike(small, last):
                faults = [_ALIKE_FAULT]
            if faults:
                self.left_out[faults[0]] += 1
                continue
            last, next_part = small, part + 1
            yield number, frame.image


def held_out_of(nights: Sequence[bool], config: AdaptConfig) -> set[int]:
    """Return which of the kept frames are held out: the last of each light, the same share of both.

    `nights` tells for each frame, in order, whether it is at night. One held-out frame more than
    the share makes sure that no light is left out.
    """
    total = len(nights)
    wanted = max(config.least_held_out, round(config.held_out * total))
    found: set[int] = set()
    for light in (False, True):
        frames = [i for i, night in enumerate(nights) if night == light]
        if frames:
            found.update(frames[-math.ceil(wanted * len(frames) / total) :])
    return found


def thumbnail(image: Pixels) -> F32:
    """Return an image (H, W, 3) RGB as 24 x 32 gray levels, 0 to 255."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, _THUMBNAIL, interpolation=cv2.INTER_AREA), np.float32)


def alike(a: F32, b: F32) -> bool:
    """Return whether two thumbnails show the same view: neither camera nor scene moved much."""
    limit = max(LEAST_ALIKE, ALIKE * float(b.mean()))
    return float(np.abs(a - b).mean()) < limit


def shrunk(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Shrink an image (H, W, 3) to fit `size` (rows, columns); return a small one unchanged."""
    rows, columns = image.shape[:2]
    scale = min(size[0] / rows, size[1] / columns)
    if scale >= 1:
        return image
    smaller = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return np.asarray(cv2.resize(image, smaller, interpolation=cv2.INTER_AREA), np.uint8)
