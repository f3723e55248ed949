# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Compares a converted model with recorded arrays of the published networks.

The arrays are in one .npz file: the inputs `image` (1, 3, H, W) in [0, 1], `encoder_noise`, `z_T`,
`zs_T`; the output of each network for them; and the result of a whole run. Latents are in [0, 1]
there.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from magicfuse_ros.bundle.schedule import ddim_steps
from magicfuse_ros.errors import MagicFuseError
from magicfuse_training.model import MagicFuse, Streams

NETWORK_LIMIT = 1e-4  # one call of one network
RUN_LIMIT = 1e-3  # all steps: chained networks amplify rounding
LEVELS = (960, 40)  # time steps at which the streams were recorded


@dataclass(frozen=True)
class ArrayComparison:
    """The largest difference of an array, relative to its largest value."""

    array: str
    error: float
    limit: float

    @property
    def fits(self) -> bool:
        """Whether the error is within the limit; NaN is not."""
        return self.error <= self.limit


@torch.no_grad()
def compare(model: MagicFuse, path: Path) -> list[ArrayComparison]:
    """Return one comparison for each output array of the file.

    Raises:
        MagicFuseError: if the file cannot be read, or lacks an array.
    """
    arrays = _Arrays(path)
    results: list[ArrayComparison] = []

    def check(values: Mapping[str, Tensor], limit: float) -> None:
        for name, value in values.items():
            want = arrays[name]
            if want.shape != value.shape:
                raise MagicFuseError(
                    f"'{path}': array '{name}' is {list(want.shape)}; expected {list(value.shape)}"
                )
            error = (value - want).abs().max() / want.abs().max()
            results.append(ArrayComparison(name, float(error), limit))

    latent = model.encoder.encode(arrays["image"], arrays["encoder_noise"])
    condition = 2 * arrays["latent"] - 1
    check({"latent": (latent + 1) / 2, "decoded": model.decoder(condition)}, NETWORK_LIMIT)
    z_T, z_seg = arrays["z_T"], arrays["zs_T"]  # noqa: N806
    check(
        {
            f"{name}_eps_t{t}": model.get_submodule(name)(condition, z_T, torch.tensor([float(t)]))
            for t in LEVELS
            for name in ("ikr", "ckg")
        },
        NETWORK_LIMIT,
    )

    preset = model.preset
    steps = ddim_steps(preset.schedule, preset.timesteps(preset.default_steps))
    tau = torch.tensor([preset.tau])
    streams = Streams(z_T, z_T, z_T, z_seg)
    for i, step in enumerate(steps):
        streams = model.advance(streams, condition, step, tau)
        assert streams.x0_mkf is not None
        if i == 0:
            eps = (z_T - step.abar_t**0.5 * streams.x0_mkf) / (1 - step.abar_t) ** 0.5
            check(
                {
                    f"mkf_eps_t{step.t}": eps,
                    f"mkf_seg_logits_t{step.t}": model.segmentation(streams.z_seg),
                    f"mkf_zs_t{step.t}": streams.z_seg,
                },
                NETWORK_LIMIT,
            )
    ends = {"ikr": streams.x0_ikr, "ckg": streams.x0_ckg, "mkf": streams.x0_mkf}
    for (name, x0), image in zip(ends.items(), ("restored", "thermal", "mag_image"), strict=True):
        assert x0 is not None
        check({f"x0_{name}": x0, image: model.decoder(x0)}, RUN_LIMIT)
    check({"seg_logits": model.segmentation(streams.z_seg)}, RUN_LIMIT)
    return results


class _Arrays:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays = dict(file.items())
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise MagicFuseError(f"'{path}' is not an .npz file of arrays: {error}") from error

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._arrays:
            raise MagicFuseError(
                f"'{self._path}' lacks the array '{name}'; it has {sorted(self._arrays)}"
            )
        return torch.from_numpy(self._arrays[name]).float()
