# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The camera model's effects on a batch of images, on the device that holds the batch.

A GPU would wait for CPU cores to make crops; here it makes its own. The arithmetic is that of
`magicfuse_training.degradations`, and a test checks that each effect matches it. Images are (B, 3,
H, W) float32 sRGB in [0, 1]. Parameters are (B,) unless stated otherwise, with the names and
meanings of the effects there.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def to_linear(image: Tensor) -> Tensor:
    """Decode sRGB to linear light, same shape."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Encode linear light as sRGB in 256 steps, clipped to [0, 1] as in a sensor."""
    light = linear.clamp(0, 1)
    image = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return quantised(image)


def quantised(image: Tensor) -> Tensor:
    """Round to the 256 codes of a camera's image, in [0, 1]."""
    return (image.clamp(0, 1) * 255).round() / 255


def enlarged(grid: Tensor, height: int, width: int) -> Tensor:
    """Enlarge coarse grids (B, h, w) to (B, 1, H, W) by bicubic interpolation."""
    return F.interpolate(grid[:, None], size=(height, width), mode="bicubic", align_corners=False)


def darkness(
    image: Tensor,
    pools: Tensor,
    stops: Tensor,
    gain: Tensor,
    full_well: Tensor,
    read_noise: Tensor,
    cast: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """See `Darkness`. `pools`: stops added, (B, 1, H, W); `cast`: (B, 3); None: no noise."""
    stops, gain, full_well, read_noise = (
        x[:, None, None, None] for x in (stops, gain, full_well, read_noise)
    )
    cast = (cast / cast.mean(1, keepdim=True))[:, :, None, None]
    electrons = to_linear(image) * torch.exp2(pools - stops) * cast * full_well
    if generator is not None:
        noise = torch.empty_like(electrons).normal_(generator=generator)
        electrons = electrons + noise * (electrons + read_noise.square()).sqrt()
    return to_srgb(electrons * (gain / full_well))


def haze(
    image: Tensor, drifts: Tensor, density: Tensor, airlight: Tensor, horizon: Tensor, rows: Tensor
) -> Tensor:
    """See `Haze`. `drifts`: (B, 1, H, W); `airlight`: (B, 3); `rows`: (B, 2), rows of the view."""
    height = image.shape[2]
    share = torch.linspace(0, 1, height, device=image.device)[None]
    row = rows[:, :1] + share * (rows[:, 1:] - rows[:, :1])
    depth = 0.06 / (row - horizon[:, None]).clamp_min(0.06)
    thickness = density[:, None, None, None] * depth[:, None, :, None] * drifts
    transmission = torch.exp(-thickness)
    light = airlight[:, :, None, None]
    return to_srgb(to_linear(image) * transmission + light * (1 - transmission))


def veil(
    image: Tensor, transmission: Tensor, airlight: Tensor, cover: Tensor, drops: Tensor
) -> Tensor:
    """See `Fog` and `Rain`.

    Args:
        image: the crops.
        transmission: (B, 1, H, W), 0 to 1.
        airlight: (B, 3), linear light.
        cover: for what part of the exposure drops hide each pixel, (B, 1, H, W), 0 to 1.
        drops: light of a drop, (B, 3).
    """
    light = to_linear(image) * transmission + airlight[:, :, None, None] * (1 - transmission)
    return to_srgb(light + cover * (drops[:, :, None, None] - light))


def blur(image: Tensor, kernels: Tensor) -> Tensor:
    """Filter each image's sRGB codes with its own kernel, (B, k, k), k odd."""
    b, c, h, w = image.shape
    reach = kernels.shape[-1] // 2
    padded = F.pad(image, (reach,) * 4, mode="reflect").reshape(1, b * c, h + 2 * reach, -1)
    weight = kernels[:, None].repeat_interleave(c, 0)
    return quantised(F.conv2d(padded, weight, groups=b * c).reshape(b, c, h, w))


# Annex K of ITU-T T.81, by rows: libjpeg scales it by the quality.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@cache
def _jpeg_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = torch.arange(8, dtype=torch.float64)
    dct = torch.cos((2 * n[None] + 1) * n[:, None] * torch.pi / 16) / 2
    dct[0] /= 2**0.5
    ycc = torch.tensor(_TO_YCC, dtype=torch.float64)
    parts = (
        dct,
        ycc,
        torch.linalg.inv(ycc),
        torch.tensor([_LUMA, _CHROMA], dtype=torch.float64).reshape(2, 8, 8),
    )
    a, b, c, d = (x.float().to(device) for x in parts)
    return a, b, c, d


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """See `Jpeg`: colour at half size, 8 x 8 cosine transforms, rounded coefficients.

    H and W are multiples of 16. Entropy coding is left out because it loses nothing.
    """
    dct, ycc, rgb, tables = _jpeg_tables(image.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None, None]
    steps = ((tables * scale + 50) / 100).floor().clamp(1, 255)
    planes = torch.einsum("ij,bjhw->bihw", ycc, quantised(image) * 255)
    luma = _coded(planes[:, :1] - 128, dct, steps[:, :1]) + 128
    chroma = _coded(F.avg_pool2d(planes[:, 1:], 2), dct, steps[:, 1:])
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.einsum("ij,bjhw->bihw", rgb, torch.cat([luma, chroma], 1))
    return quantised(decoded / 255)


def _coded(plane: Tensor, dct: Tensor, steps: Tensor) -> Tensor:
    """Round the coefficients of every 8 x 8 block to multiples of `steps` (B, 1, 8, 8)."""
    b, c, h, w = plane.shape
    blocks = plane.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    step = steps[:, :, None, None]
    coefficients = ((dct @ blocks @ dct.T) / step).round() * step
    return (dct.T @ coefficients @ dct).transpose(3, 4).reshape(b, c, h, w)
