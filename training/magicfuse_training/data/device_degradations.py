# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Degrades a batch of crops on the device that holds it: see `magicfuse_training.degradations`.

The CPU draws the parameters, and the drops of the few crops in rain; `device_effects.py` does the
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_training.arrays import F32, F64
from magicfuse_training.data import device_effects
from magicfuse_training.degradations import (
    Darkness,
    DefocusBlur,
    Effect,
    Haze,
    Jpeg,
    MotionBlur,
    Rain,
    in_physical_order,
)
from magicfuse_training.degradations.weather import Veil

KERNEL = 17  # pixels: holds the longest motion blur and the widest defocus
POOLS = (8, 16)  # cells: pools of light of any size are resized to this grid

Rng = np.random.Generator
Kinds = tuple[type[Effect], ...]
Apply = Callable[[Tensor, Sequence[Effect], F64, Rng], Tensor]


def degrade_batch(
    image: Tensor, effects: Sequence[Sequence[Effect]], rows: F64, rng: Rng
) -> Tensor:
    """Return a batch degraded, (B, 3, h, w) in [0, 1]; each crop has its own effects.

    Each pass applies one kind to all crops that have it next, in the physical order. There are two
    passes of blur: a crop whose main cause is blur can have been blurred before, too.

    Args:
        image: the crops, (B, 3, h, w) float32 in [0, 1].
        effects: the effects of each crop, in any order.
        rows: first and last row that each crop shows, as fractions of its frame's height, (B, 2).
        rng: draws noise and drops.
    """
    waiting = [in_physical_order(some) for some in effects]
    image = image.clone()
    for kinds, apply in _PASSES:
        chosen = [i for i, some in enumerate(waiting) if some and isinstance(some[0], kinds)]
        if chosen:
            at = torch.from_numpy(np.array(chosen)).to(image.device, non_blocking=True)
            drawn = [waiting[i].pop(0) for i in chosen]
            image[at] = apply(image[at], drawn, rows[chosen], rng)
    assert not any(waiting), "an effect that the device does not have"
    return image


def _haze(image: Tensor, drawn: Sequence[Effect], rows: F64, rng: Rng) -> Tensor:
    drifts = device_effects.enlarged(_values(image, drawn, "drifts"), *image.shape[2:])
    return device_effects.haze(
        image,
        drifts,
        _values(image, drawn, "density"),
        _values(image, drawn, "airlight"),
        _values(image, drawn, "horizon"),
        _to(image, rows),
    )


def _veil(image: Tensor, drawn: Sequence[Effect], rows: F64, rng: Rng) -> Tensor:
    """Fog, and rain with its drops."""
    height, width = image.shape[2:]
    cover = np.zeros((len(drawn), 1, height, width), np.float32)
    transmission, drops = np.empty_like(cover), np.zeros((len(drawn), 3))
    for i, (effect, (top, bottom)) in enumerate(zip(drawn, rows.tolist(), strict=True)):
        assert isinstance(effect, Veil)
        transmission[i, 0] = effect.transmission(height, width, (top, bottom))[..., 0]
        if isinstance(effect, Rain):
            cover[i, 0] = effect.cover(height, width, rng, (top, bottom))
            drops[i] = effect.sky * np.array(effect.airlight)
    return device_effects.veil(
        image,
        _to(image, transmission),
        _values(image, drawn, "airlight"),
        _to(image, cover),
        _to(image, drops),
    )


def _blur(image: Tensor, drawn: Sequence[Effect], rows: F64, rng: Rng) -> Tensor:
    kernels = [_padded(d.kernel()) for d in drawn if isinstance(d, (MotionBlur, DefocusBlur))]
    # Pad to a multiple of 16 images: cuDNN makes a plan for every new number of images.
    kernels += kernels[:1] * (-len(kernels) % 16)
    padded = F.pad(image, (0, 0) * 3 + (0, len(kernels) - len(image)))
    return device_effects.blur(padded, _to(image, np.stack(kernels)))[: len(image)]


def _darken(image: Tensor, drawn: Sequence[Effect], rows: F64, rng: Rng) -> Tensor:
    # The grids differ in size: the CPU resizes them to one size, which the device enlarges.
    grids = [np.array(d.light_stops, np.float32) for d in drawn if isinstance(d, Darkness)]
    pools = np.stack([cv2.resize(g, POOLS[::-1], interpolation=cv2.INTER_CUBIC) for g in grids])
    return device_effects.darkness(
        image,
        device_effects.enlarged(_to(image, pools), *image.shape[2:]),
        _values(image, drawn, "stops"),
        _values(image, drawn, "gain"),
        _values(image, drawn, "full_well"),
        _values(image, drawn, "read_noise"),
        _values(image, drawn, "cast"),
        torch.Generator(image.device).manual_seed(int(rng.integers(2**62))),
    )


def _compress(image: Tensor, drawn: Sequence[Effect], rows: F64, rng: Rng) -> Tensor:
    return device_effects.jpeg(image, _values(image, drawn, "quality"))


_BLURS: Kinds = (MotionBlur, DefocusBlur)
_PASSES: tuple[tuple[Kinds, Apply], ...] = (
    ((Haze,), _haze),
    ((Veil,), _veil),
    (_BLURS, _blur),
    (_BLURS, _blur),
    ((Darkness,), _darken),
    ((Jpeg,), _compress),
)


def _to(image: Tensor, values: npt.NDArray[Any]) -> Tensor:
    """Return values as float32 on the device of `image`."""
    return torch.from_numpy(np.asarray(values, np.float32)).to(image.device, non_blocking=True)


def _values(image: Tensor, effects: Sequence[Effect], name: str) -> Tensor:
    return _to(image, np.array([getattr(effect, name) for effect in effects]))


def _padded(kernel: F32) -> F32:
    margin = (KERNEL - len(kernel)) // 2
    return np.pad(kernel, margin)
