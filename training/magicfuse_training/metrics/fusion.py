# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""How good a fused image is, by the metrics of infrared and visible image fusion.

All metrics use gray images (H, W), uint8: the fused image F and its sources, a visible image A and
a thermal image B. Metrics that sum over the sources follow the field's survey (Ma, Ma and Li,
10.1016/j.inffus.2018.02.004) and most code; some papers give the mean, which is half of the sum.

EN     `entropy` of F
SD     standard deviation of F, 0 to 255
SF     `spatial_frequency` of F
SSIM   SSIM(A, F) + SSIM(B, F): `images.ssim`, -2 to 2
MI     MI(A, F) + MI(B, F): `mutual_information`
Qabf   `edge_preservation`
PSNR   `fusion_psnr`
VIF    VIF(A, F) + VIF(B, F): `vif`
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from magicfuse_training.arrays import F32, F64, I64, U8
from magicfuse_training.metrics.images import HIGHEST_DB, WHITE, ssim

# Xydeas and Petrovic 2000, Table of constants: how a viewer perceives a loss of edge strength or a
# rotation of an edge. Each is a sigmoid with a height, a slope and a middle.
_STRENGTH = (0.9994, -15.0, 0.5)
_ORIENTATION = (0.9879, -22.0, 0.8)

_VIF_SCALES = 4
_VIF_NOISE = 2.0  # variance of the eye's noise in the published model
_LEAST = 1e-10
VIF_SMALLEST = 41  # pixels of the shorter side: below that, the fourth scale is empty


def fusion_scores(fused: U8, sources: tuple[U8, U8] | None) -> dict[str, float]:
    """Return the scores of one fused image, by name; without sources, only those of F alone.

    VIF is NaN for an image with a side below VIF_SMALLEST.
    """
    scores = {"EN": entropy(fused), "SD": float(fused.std()), "SF": spatial_frequency(fused)}
    if sources is None:
        return scores
    return scores | {
        "SSIM": sum(ssim(source, fused) for source in sources),
        "MI": sum(mutual_information(source, fused) for source in sources),
        "Qabf": edge_preservation(*sources, fused),
        "PSNR": fusion_psnr(*sources, fused),
        "VIF": sum(vif(fused, source) for source in sources),
    }


def entropy(gray: U8) -> float:
    """Return the Shannon entropy of a gray image (H, W) in bits, 0 to 8 (10.1117/1.2945910)."""
    return _bits(np.bincount(gray.ravel(), minlength=256))


def spatial_frequency(gray: U8) -> float:
    """Return the root mean square of horizontal and vertical differences, 0 to 255 * sqrt(2).

    Eskicioglu and Fisher, 10.1109/26.477498.
    """
    x = gray.astype(np.float64)
    rows, columns = np.diff(x, axis=1), np.diff(x, axis=0)
    return float(np.sqrt((rows**2).mean() + (columns**2).mean()))


def mutual_information(a: U8, b: U8) -> float:
    """Return the mutual information of two gray images (H, W) of one size in bits, 0 to 8.

    Qu, Zhang and Yan, 10.1049/el:20020212: from the joint histogram of 256 x 256 levels. It is not
    normalised, and in bits. Code that calls scikit-learn's `mutual_info_score` gives nats, which
    are 0.693 times the bits.
    """
    joint = np.bincount(a.ravel().astype(np.int64) * 256 + b.ravel(), minlength=256 * 256)
    return entropy(a) + entropy(b) - _bits(joint)


def _bits(counts: I64) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def edge_preservation(a: U8, b: U8, fused: U8) -> float:
    """Return Qabf: how much of the edges of two sources the fused image keeps, 0 to 0.975.

    Xydeas and Petrovic, 10.1049/el:20000267: Sobel edges are compared by strength and by
    orientation, and each pixel is weighted by the strength of its edge in the source (their L = 1).
    With the published constants, an image that equals both of its sources scores 0.975, not 1. The
    orientation is that of a line: edges from dark to bright and from bright to dark are alike, as
    in the commonly shared code. NaN if neither source has an edge.
    """
    strength_f, angle_f = _edges(fused)
    hits = total = 0.0
    for source in (a, b):
        strength, angle = _edges(source)
        low, high = np.minimum(strength, strength_f), np.maximum(strength, strength_f)
        kept = np.divide(low, high, out=np.ones_like(low), where=high > 0)
        aligned = np.abs(np.abs(angle - angle_f) - np.pi / 2) / (np.pi / 2)
        quality = _sigmoid(kept, *_STRENGTH) * _sigmoid(aligned, *_ORIENTATION)
        hits += float((quality * strength).sum())
        total += float(strength.sum())
    return hits / total if total > 0 else float("nan")


def _edges(gray: U8) -> tuple[F64, F64]:
    """Return the strength of Sobel edges and their orientation, -pi/2 to pi/2, (H, W) each."""
    x, y = (
        cv2.Sobel(gray, cv2.CV_64F, dx, 1 - dx, ksize=3, borderType=cv2.BORDER_REPLICATE)
        for dx in (1, 0)
    )
    flat = np.where(x == 0, np.where(y == 0, 0.0, np.pi / 2), 0.0)
    angle = np.where(x == 0, flat, np.arctan(np.divide(y, x, out=np.zeros_like(y), where=x != 0)))
    return np.hypot(x, y), angle


def _sigmoid(x: F64, height: float, slope: float, middle: float) -> F64:
    return height / (1 + np.exp(slope * (x - middle)))


def fusion_psnr(a: U8, b: U8, fused: U8) -> float:
    """Return the PSNR of a fused image, in dB, 0 to 60, from the mean of both squared errors.

    It is 10 log10(255^2 / ((MSE(A, F) + MSE(B, F)) / 2)), as in the survey named above, not the
    mean of two PSNR. The mean of the sources has the highest PSNR, however it looks.
    """
    squares = sum(float(cv2.norm(s, fused, cv2.NORM_L2SQR)) for s in (a, b)) / (2 * fused.size)
    return HIGHEST_DB if squares == 0 else min(10 * float(np.log10(WHITE**2 / squares)), HIGHEST_DB)


def vif(image: U8, reference: U8) -> float:
    """Return the visual information fidelity of a gray image for a reference, about 0 to 1.

    Sheikh and Bovik, 10.1109/TIP.2005.859378, in the pixel domain at four scales (VIFp). The result
    matches that of torchmetrics and takes a sixth of its time. It exceeds 1 for an image with more
    contrast than the reference. NaN if a side has less than VIF_SMALLEST pixels, or the reference
    is flat.
    """
    if min(image.shape) < VIF_SMALLEST or reference.min() == reference.max():
        return float("nan")
    x, r = image.astype(np.float32), reference.astype(np.float32)
    told = there = 0.0
    for scale in range(_VIF_SCALES):
        window = 2 ** (_VIF_SCALES - scale) + 1
        if scale:
            x, r = (_mean_inside(y, window)[::2, ::2] for y in (x, r))
        mean_x, mean_r = _mean_inside(x, window), _mean_inside(r, window)
        var_x = np.maximum(_mean_inside(x * x, window) - mean_x**2, 0)
        var_r = np.maximum(_mean_inside(r * r, window) - mean_r**2, 0)
        covariance = _mean_inside(x * r, window) - mean_x * mean_r
        gain = covariance / (var_r + _LEAST)
        rest = var_x - gain * covariance  # the part that the reference does not explain
        alive = (var_r >= _LEAST) & (var_x >= _LEAST) & (gain >= 0)
        rest = np.where(alive, rest, np.where(var_x < _LEAST, 0, var_x))
        gain = np.where(alive, gain, 0)
        var_r = np.where(var_r < _LEAST, 0, var_r)
        rest = np.maximum(rest, _LEAST)
        told += float(np.log(1 + gain**2 * var_r / (rest + _VIF_NOISE)).sum(dtype=np.float64))
        there += float(np.log(1 + var_r / _VIF_NOISE).sum(dtype=np.float64))
    return told / there if there > 0 else float("nan")


def _mean_inside(x: F32, window: int) -> F32:
    """Return Gaussian means of all complete windows: (H, W) to (H - window + 1, ...)."""
    kernel, half = cv2.getGaussianKernel(window, window / 5, cv2.CV_32F), window // 2
    mean = cv2.sepFilter2D(x, -1, kernel, kernel)[half:-half, half:-half]
    return cast(F32, mean)
