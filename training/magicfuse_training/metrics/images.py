# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Similarity of two images, and the luma of one."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from magicfuse_training.arrays import F64, U8

WHITE = 255.0
HIGHEST_DB = 60.0  # for identical images, whose PSNR would be infinite
_WINDOW, _SIGMA = 11, 1.5  # of SSIM: pixels
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM, finest first
MS_SSIM_SMALLEST = _WINDOW * 2 ** (len(_SCALE_WEIGHTS) - 1)  # pixels: 176
_C1, _C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2


def psnr(a: U8, b: U8) -> float:
    """Return the peak signal-to-noise ratio of two images of one shape, in dB, 0 to 60.

    It is 10 log10(255^2 / mean squared difference), over all pixels and channels.
    """
    squares = float(cv2.norm(a, b, cv2.NORM_L2SQR)) / a.size
    return HIGHEST_DB if squares == 0 else min(10 * float(np.log10(WHITE**2 / squares)), HIGHEST_DB)


def ssim(a: U8, b: U8) -> float:
    """Return the structural similarity of two gray images (H, W), -1 to 1; 1: identical.

    It is the mean over pixels of the index of 10.1109/TIP.2003.819861, with its Gaussian window (11
    x 11, sigma 1.5) and constants; the images are mirrored beyond the borders.
    """
    luminance, contrast = _similarity(a.astype(np.float64), b.astype(np.float64))
    return float((luminance * contrast).mean())


def ms_ssim(a: U8, b: U8) -> float:
    """Return the multi-scale structural similarity of two gray images (H, W), 0 to 1.

    Wang, Simoncelli and Bovik, 10.1109/ACSSC.2003.1292216: SSIM's contrast factor at five scales,
    each half of the previous one, and its luminance factor at the last. Windows that cross the
    borders are left out. NaN for an image with a side below MS_SSIM_SMALLEST.
    """
    if min(a.shape) < MS_SSIM_SMALLEST:
        return float("nan")
    x, y = a.astype(np.float64), b.astype(np.float64)
    product, border = 1.0, slice(_WINDOW // 2, -(_WINDOW // 2))
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            half = (x.shape[1] // 2, x.shape[0] // 2)
            x, y = (_halved(image, half) for image in (x, y))
        luminance, contrast = _similarity(x, y)
        last = scale == len(_SCALE_WEIGHTS) - 1
        shown = (luminance * contrast if last else contrast)[border, border]
        product *= max(float(shown.mean()), 0.0) ** weight
    return product


def _halved(x: F64, size: tuple[int, int]) -> F64:
    """Return means over 2 x 2 pixels; drop an odd last row or column."""
    width, height = size
    return cast(F64, x[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3)))


def _similarity(x: F64, y: F64) -> tuple[F64, F64]:
    """Return SSIM's factors around every pixel: luminance, and contrast with structure."""
    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x) - mean_x**2 + local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (variances + _C2)


def local_mean(x: F64) -> F64:
    """Return the mean in SSIM's window around every pixel; same shape (H, W)."""
    mean = cv2.GaussianBlur(x, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT_101)
    return cast(F64, mean)


def luma(image: U8) -> U8:
    """Return the luma (H, W) of an RGB image (H, W, 3), 0 to 255: ITU-R BT.601."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


class Constants:
    """Similarity of constant images, one per level 0 to 255, to some gray images.

    An estimate has to beat them, because they know nothing of the scene. SSIM is accurate to 0.001:
    local means are rounded to 1/16 of a level.
    """

    _FINE = 16

    def __init__(self) -> None:
        self._moments: list[tuple[float, float]] = []  # mean and variance of each image
        # SSIM's second factor by local mean; the sum over images, for there may be thousands.
        self._contrast: F64 = np.zeros(255 * self._FINE + 1)

    def add(self, image: U8) -> None:
        """Add one image (H, W)."""
        x = image.astype(np.float64)
        self._moments.append((float(x.mean()), float(x.var())))
        mean = local_mean(x)
        factor = _C2 / (local_mean(x * x) - mean**2 + _C2)  # a constant has no variance
        bins = np.rint(mean * self._FINE).astype(np.int64).ravel()
        sums = np.bincount(bins, factor.ravel(), minlength=255 * self._FINE + 1)
        self._contrast += sums / bins.size

    def best(self) -> dict[str, dict[str, float]]:
        """Return level, PSNR (dB) and SSIM of the best constants, as means over the images."""
        levels = np.arange(256.0)[:, None]
        mean, variance = np.array(self._moments).T
        squares = np.maximum(variance + (mean - levels) ** 2, 1e-9)
        decibels = np.minimum(10 * np.log10(WHITE**2 / squares), HIGHEST_DB).mean(1)
        local = np.arange(255 * self._FINE + 1) / self._FINE
        luminance = (2 * levels * local + _C1) / (levels**2 + local**2 + _C1)
        similarity = luminance @ (self._contrast / len(self._moments))
        return {
            f"constant_of_best_{name}": {
                "level": int(values.argmax()),
                "psnr_db": float(decibels[values.argmax()]),
                "ssim": float(similarity[values.argmax()]),
            }
            for name, values in (("psnr", decibels), ("ssim", similarity))
        }
