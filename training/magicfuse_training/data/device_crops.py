# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Makes crops on the training device, which holds all scenes in its memory.

Sixteen CPU cores make about 500 crops a second for a GPU that could take thousands. The draws have
the distributions of `Crops` but not its numbers, so a run on one kind of crops does not match a run
on the other. Night is made from whole scenes once, not from every crop, and nobody is pasted. Every
batch has the same number of crops of each group.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.arrays import I64, U8
from magicfuse_training.data import device_effects
from magicfuse_training.data.classes import IGNORE
from magicfuse_training.data.crop_draws import (
    CLOTHES_GAIN,
    DARK_CLOTHES,
    FEW,
    Bar,
    CropConfig,
    Light,
    Place,
    Window,
    draw_bar,
    draw_effects,
    draw_light,
    draw_patch,
    draw_window,
    rare_place,
)
from magicfuse_training.data.crop_light import CLOTHES_EDGE
from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.data.device_degradations import degrade_batch
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import Boxes
from magicfuse_training.data.scenes import Scene

PLACES = 8  # pixels of rare classes that are kept for each scene
PLANES = 10  # bytes of a scene per pixel


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; assume enough if nothing reports them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what an earlier stage left there counts as used
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, ValueError):
        return sys.maxsize


def _check_room(count: int, size: Sequence[int], device: torch.device) -> None:
    """Check that a device can hold scenes of a given size (rows, columns)."""
    each = PLANES * size[0] * size[1]
    if (free := free_memory(device)) < count * each:
        raise DataError(
            f"--device-crops needs {count * each / 1e9:.1f} GB on {device} for {count} scenes of "
            f"{size[0]}x{size[1]}, and {free / 1e9:.1f} GB are free: expected at most "
            f"{free // each} scenes; give less --data, or leave --device-crops out"
        )


class DeviceCrops(Crops):
    """Like `Crops`, with batches on `device`; the seed and the start index determine a batch."""

    def __init__(
        self,
        groups: Sequence[Sequence[Scene]],
        group_weights: list[float],
        config: CropConfig,
        seed: int,
        device: torch.device,
        canvas: tuple[int, int],
        undegraded: bool = False,
    ) -> None:
        """Read all scenes, one after the other, into the device's memory.

        `canvas`: rows and columns that hold any scene.

        Raises:
            DataError: if the device cannot hold them.
        """
        kept = list({id(group): group for group in groups}.values())  # a set may be given twice
        count = sum(map(len, kept))
        _check_room(count, canvas, device)
        super().__init__(groups, group_weights, config, seed, undegraded)
        self.device = device
        lengths = [len(group) for group in kept]
        starts = dict(zip(map(id, kept), np.cumsum([0, *lengths]).tolist(), strict=False))
        self.starts = np.array([starts[id(group)] for group in groups])
        self.lengths = np.array([len(group) for group in groups])
        self.canvas = canvas  # each scene lies in a corner of it
        self.sizes = np.zeros((count, 2), np.int64)  # of the scenes
        self.clean, self.paired = np.zeros((2, count), bool)
        self.boxes: list[Boxes] = []
        self.places: list[list[Place]] = []
        # (N, 10, H, W): visible, target, thermal, label, teacher, people. A clean scene is its own
        # target, but a single gather for everything is worth the memory.
        self.images = torch.zeros((count, PLANES, *canvas), dtype=torch.uint8, device=device)
        rng = np.random.default_rng(seed)
        # The host's memory need not hold more than one scene of those that are read on demand.
        for i, scene in enumerate(scene for group in kept for scene in group):
            height, width = self.sizes[i] = scene.label.shape
            self.clean[i], self.paired[i] = scene.clean, scene.thermal is not None
            self.boxes.append(scene.people)
            drawn = [rare_place(scene.label, config.rare, rng) for _ in range(PLACES)]
            self.places.append([place for place in drawn if place])
            self.images[i, :, :height, :width] = torch.from_numpy(_planes(scene))

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """Return the samples of these consecutive indices as one batch."""
        rng = np.random.default_rng([self.seed, indices[0]])
        count, config = len(indices), self.config
        group = np.repeat(np.arange(len(self.groups)), self._counts(count))
        first, size = self.starts[group], self.lengths[group]
        scene = first + rng.integers(size)
        bars = [draw_bar(config, rng) for _ in range(count)]
        images, windows = self._cut_all(scene, rng, bars)
        mixed = np.nonzero((rng.random(count) < config.mixed) & (size <= FEW))[0]
        if len(mixed):
            at = self._index(mixed)
            other, _ = self._cut_all(first[mixed] + rng.integers(size[mixed]), rng)
            patches = self._pasted([draw_patch(rng) for _ in mixed])
            images[at] = torch.where(patches, other, images[at])
        clean = self.clean[scene]
        dressed = np.nonzero(clean & (rng.random(count) < DARK_CLOTHES))[0]
        if len(dressed):
            at, gain = self._index(dressed), self._to(rng.uniform(*CLOTHES_GAIN, len(dressed)))
            images[at] = _dressed_darkly(images[at], gain, config.people)
        effects = [draw_effects(bool(by_day), rng, config.clean) for by_day in clean]
        shares = [w.shares(tuple(self.sizes[i])) for w, i in zip(windows, scene, strict=True)]
        effects = [[e.cut(*at) for e in some] for some, at in zip(effects, shares, strict=True)]
        rows = np.array([rows for rows, _ in shares])
        degraded = degrade_batch(images[:, :3], effects, rows, rng)
        barred = self._barred(torch.cat([images, degraded], 1), bars)
        images, degraded = barred[:, :PLANES], barred[:, PLANES:]
        codes = (images[:, :7] * 255).round().to(torch.uint8)
        person = images[:, 9:10] > 0
        weight = torch.where(person, config.person_weight, 1.0)
        seen = {"seen": codes[:, :3]} if self.undegraded else {}
        return seen | {
            "degraded": (degraded * 255).round().to(torch.uint8),
            "clean": codes[:, 3:6],
            "thermal": codes[:, 6:],
            "label": (images[:, 7] * 255).round().long(),
            "teacher": (images[:, 8] * 255).round().long(),
            "weight": weight,
            "has_clean": self._to(np.where(clean, 1.0, config.night_weight)),
            "has_thermal": self._to(self.paired[scene]),
            "sharpness": self._to(np.array([window.sharpness(config) for window in windows])),
        }

    def _counts(self, total: int) -> I64:
        """Return how many crops of each group a batch has; the numbers never change.

        Losses split a batch by group, and cuDNN makes a plan for every new size.
        """
        wanted = self.probabilities * total
        counts = np.floor(wanted).astype(np.int64)
        counts[np.argsort(counts - wanted)[: total - counts.sum()]] += 1
        if ((counts == 0) & (wanted > 0)).any():
            least = self.probabilities[self.probabilities > 0].min()
            raise DataError(
                f"a part of {total} crops on the device has none of the rarest group, which should "
                f"be {100 * least:.1f} % of them; expected parts of {math.ceil(1 / least)} or more"
            )
        return counts

    def _to(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self.device, non_blocking=True)

    def _index(self, values: I64) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _cut_all(
        self, scene: I64, rng: np.random.Generator, bars: Sequence[Bar | None] = ()
    ) -> tuple[Tensor, list[Window]]:
        """Cut crops with new light out of scenes: (B, 10, h, w) in [0, 1], and the windows."""
        config, count = self.config, len(scene)
        windows = [
            self._window(int(i), rng, bar)
            for i, bar in zip(scene, bars or [None] * count, strict=True)
        ]
        y, x, h, w = np.array([(v.y, v.x, v.height, v.width) for v in windows]).T
        flip = np.array([-1.0 if v.flip else 1.0 for v in windows])
        none, (tall, wide) = np.zeros(count), self.canvas
        theta = np.array(
            [
                [flip * w / wide, none, (2 * x + w) / wide - 1],
                [none, h / tall, (2 * y + h) / tall - 1],
            ]
        )
        theta = theta.transpose(2, 0, 1)
        size = [count, 1, config.height, config.width]
        grid = F.affine_grid(self._to(theta), size, align_corners=False)
        images = self.images[self._index(scene)].float() / 255
        smooth = F.grid_sample(
            images[:, :7], grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        exact = F.grid_sample(images[:, 7:], grid, mode="nearest", align_corners=False)
        lit = self._relit(smooth[:, :6], [draw_light(bool(c), rng) for c in self.clean[scene]])
        return torch.cat([lit, smooth[:, 6:], exact], 1), windows

    def _barred(self, images: Tensor, bars: Sequence[Bar | None]) -> Tensor:
        """Mirror the bars of crops (B, C, h, w), and set their labels to IGNORE."""
        height = self.config.height
        sources = [np.arange(height) if bar is None else bar.sources(height) for bar in bars]
        index = self._index(np.stack(sources))[:, None, :, None]
        images = images.take_along_dim(index, 2)
        for image, bar in zip(images, bars, strict=True):
            if bar is not None:
                image[7:9, bar.hidden] = IGNORE / 255
        return images

    def _window(self, scene: int, rng: np.random.Generator, bar: Bar | None) -> Window:
        places = self.places[scene]

        def rare(rng: np.random.Generator) -> Place | None:
            return places[rng.integers(len(places))] if places else None

        height, width = self.sizes[scene].tolist()
        clean = bool(self.clean[scene])
        return draw_window((height, width), clean, self.boxes[scene], rare, self.config, rng, bar)

    def _relit(self, pair: Tensor, lights: Sequence[Light]) -> Tensor:
        """Change the light of (B, 6, h, w): visible and target alike."""
        gamma, saturation = (
            self._to(np.array([getattr(light, name) for light in lights]))[
                :, None, None, None, None
            ]
            for name in ("gamma", "saturation")
        )
        gains = self._to(np.array([light.gains for light in lights]))[:, None, :, None, None]
        b, _, h, w = pair.shape
        image = pair.reshape(b, 2, 3, h, w).clamp_min(1e-6) ** gamma
        image = device_effects.quantised(image * gains)
        luma = image.new_tensor([0.299, 0.587, 0.114])[:, None, None]
        gray = (image * luma).sum(2, keepdim=True)
        image = gray + saturation * (image - gray)
        return device_effects.quantised(image.reshape(b, 6, h, w))

    def _pasted(self, patches: Sequence[tuple[Place, Place]]) -> Tensor:
        """Return where a patch of another scene covers each crop, (B, 1, h, w) bool."""
        starts_and_ends = self._to(np.array(patches))  # (B, 2, 2)
        inside = []
        for axis, n in enumerate((self.config.height, self.config.width)):
            at = (torch.arange(n, device=self.device) + 0.5)[None] / n
            start, end = starts_and_ends[:, axis, :1], starts_and_ends[:, axis, 1:]
            inside.append((at >= start) & (at < end))
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _dressed_darkly(images: Tensor, gain: Tensor, people: tuple[int, ...]) -> Tensor:
    """See `dress_darkly`; images (B, 10, h, w) in [0, 1], gain (B,)."""
    ids = torch.tensor(people, device=images.device)
    mask = torch.isin((images[:, 7:8] * 255).round().long(), ids).float()
    mask = F.avg_pool2d(mask, CLOTHES_EDGE, 1, CLOTHES_EDGE // 2, count_include_pad=False)
    darker = device_effects.quantised(images[:, :6] * (1 - (1 - gain[:, None, None, None]) * mask))
    return torch.cat([darker, images[:, 6:]], 1)


def _planes(scene: Scene) -> U8:
    """Return a scene's images stacked, (10, H, W) uint8."""
    none = np.zeros_like(scene.label)
    thermal = none if scene.thermal is None else scene.thermal
    teacher = np.full_like(none, IGNORE) if scene.teacher is None else scene.teacher
    colours = [scene.visible.transpose(2, 0, 1), scene.target.transpose(2, 0, 1)]
    return np.concatenate(
        [*colours, np.stack([thermal, scene.label, teacher, scene.people_mask()])]
    )
