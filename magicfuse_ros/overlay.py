# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Draws a segmentation: classes as colours over an image, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.errors import FrameError

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.45
_ROW = 22  # pixels
_GAP = 6
_WIDTH = 640  # image width that the sizes above are for
_OPACITY = 0.75
_LARGEST_SHARE = 4  # a legend that would cover more than 1/4 of the image is left out


def overlay(
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    classes: Sequence[SemanticClass],
    alpha: float = 0.5,
) -> npt.NDArray[np.uint8]:
    """Blend the colours of the classes over an image.

    Args:
        image: [H, W, 3] uint8 RGB.
        mask: [H, W] uint8 class ids; an id without a class (255: unlabeled) adds no colour.
        classes: the classes of the bundle.
        alpha: weight of the colour, 0 to 1.

    Returns:
        A new [H, W, 3] uint8 RGB image.

    Raises:
        FrameError: if the sizes differ.
    """
    if image.shape[:2] != mask.shape:
        raise FrameError(f"mask has shape {mask.shape}; expected the image's {image.shape[:2]}")
    palette = np.zeros((256, 3), np.uint8)
    known = np.zeros(256, bool)
    for c in classes:
        palette[c.id] = c.color
        known[c.id] = True
    blended = np.asarray(cv2.addWeighted(image, 1 - alpha, palette[mask], alpha, 0), np.uint8)
    labeled = known[mask]
    if not labeled.all():
        blended[~labeled] = image[~labeled]
    return blended


def with_legend(
    image: npt.NDArray[np.uint8], classes: Sequence[SemanticClass]
) -> npt.NDArray[np.uint8]:
    """Draw the legend at the top, over the sky of a road scene.

    Args:
        image: [H, W, 3] uint8 RGB; changed in place, unless it is too small for a readable legend.
        classes: the classes of the bundle.

    Returns:
        The image.
    """
    height, width = image.shape[:2]
    strip = _scaled_legend(tuple(classes), width, height // _LARGEST_SHARE)
    if strip is not None:
        rows = strip.shape[0]
        image[:rows] = cv2.addWeighted(strip, _OPACITY, image[:rows], 1 - _OPACITY, 0)
    return image


@lru_cache(maxsize=4)
def _scaled_legend(
    classes: tuple[SemanticClass, ...], width: int, most_rows: int
) -> npt.NDArray[np.uint8] | None:
    """Return the legend for an image of this width, with letters scaled from a width of 640.

    None if it would have more rows than `most_rows`: for an image of 200000x1, it would take 8 GB.
    """
    scale = max(1.0, width / _WIDTH)
    strip = legend(classes, round(width / scale))
    rows = round(strip.shape[0] * scale)
    if rows > most_rows:
        return None
    return np.asarray(cv2.resize(strip, (width, rows), interpolation=cv2.INTER_CUBIC), np.uint8)


def legend(classes: Sequence[SemanticClass], width: int = 640) -> npt.NDArray[np.uint8]:
    """Return a strip [rows, width, 3] uint8 RGB with the colour and name of every class."""
    places: list[tuple[int, int, SemanticClass]] = []
    x = y = 0
    for c in classes:
        needed = _ROW + cv2.getTextSize(c.name, _FONT, _FONT_SCALE, 1)[0][0] + 2 * _GAP
        if x and x + needed > width:
            x, y = 0, y + _ROW
        places.append((x, y, c))
        x += needed
    strip = np.full((y + _ROW, width, 3), 32, np.uint8)
    for x, y, c in places:
        corner = (x + _ROW - _GAP, y + _ROW - _GAP)
        cv2.rectangle(strip, (x + _GAP, y + _GAP), corner, c.color, cv2.FILLED)
        baseline = (x + _ROW, y + _ROW - _GAP)
        cv2.putText(strip, c.name, baseline, _FONT, _FONT_SCALE, (255, 255, 255), 1, cv2.LINE_AA)
    return strip
