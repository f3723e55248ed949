# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The diffusion algebra, a line or two each: DDPM (2006.11239), DDIM (2010.02502), v (2202.00512).

    z_t = a x0 + s eps      a = sqrt(abar_t), s = sqrt(1 - abar_t)
    v   = a eps - s x0

z, x0, eps, v: (B, L, h, w); abar: anything that broadcasts against them. All float32.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Prediction = Literal["epsilon", "v"]


def add_noise(x0: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """Return z_t (DDPM Eq. 4)."""
    return abar.sqrt() * x0 + (1 - abar).sqrt() * eps


def velocity(x0: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """Return v of a known x0 and eps (2202.00512, Appendix D)."""
    return abar.sqrt() * eps - (1 - abar).sqrt() * x0


def split(prediction: Prediction, output: Tensor, z: Tensor, abar: Tensor) -> tuple[Tensor, Tensor]:
    """Return (eps, x0) from a network's output; x0 is the paper's one-step estimate z~_{t->0}.

    With `epsilon`, abar must be above 0: at zero terminal SNR, only `v` is defined.
    """
    a, s = abar.sqrt(), (1 - abar).sqrt()
    if prediction == "v":
        return a * output + s * z, a * z - s * output
    return output, (z - s * output) / a


def ddim(x0: Tensor, eps: Tensor, abar_next: Tensor) -> Tensor:
    """Return z at the next level (DDIM Eq. 12 with eta 0)."""
    return abar_next.sqrt() * x0 + (1 - abar_next).sqrt() * eps


def fuse(
    prediction: Prediction,
    w: Tensor,
    z: Tensor,
    ikr: tuple[Tensor, Tensor],
    ckg: tuple[Tensor, Tensor],
    abar: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mix the streams' noise by w (Eq. 8) and return (eps, x0) of the fused stream.

    `ikr` and `ckg` are (eps, x0) pairs. With `epsilon`, eps_f = w eps_ikr + (1 - w) eps_ckg. With
    `v`, the velocities are mixed instead. Both give the same x0 while the streams share z, but at
    abar = 0 every eps equals z, and only the velocity is still informative.
    """
    if prediction == "epsilon":
        return split("epsilon", w * ikr[0] + (1 - w) * ckg[0], z, abar)
    mixed = w * velocity(ikr[1], ikr[0], abar) + (1 - w) * velocity(ckg[1], ckg[0], abar)
    return split("v", mixed, z, abar)
