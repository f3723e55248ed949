# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Maps HDR video (BT.2100: PQ and HLG) to the range and colours of sRGB and BT.709.

Diffuse white, 203 cd/m2 in HDR (BT.2408), becomes SDR white, except that brighter light is
compressed into a small part of the range just below it. The SDR display has a gamma of 2.4
(BT.1886).
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.image_codec import Pixels

_WHITE = 203.0  # cd/m2
_PEAK = 1000.0  # cd/m2: of the reference display of HLG, and of nearly all PQ masters
_KNEE = 0.75  # of SDR white; darker light stays as it is
_SDR_GAMMA = 2.4
_HLG_GAMMA = 1.2  # for a display of 1000 cd/m2
_LUMA_2020 = np.array([[0.2627, 0.6780, 0.0593]], np.float32)
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)

Floats = npt.NDArray[np.float32]


class Transfer(IntEnum):
    """The transfer function of an HDR video, by its number in ITU-T H.273."""

    PQ = 16
    HLG = 18


def tone_mapped(image: npt.NDArray[np.uint16], transfer: Transfer) -> Pixels:
    """Convert an HDR image to SDR.

    Args:
        image: HxWx3, R'G'B' in BT.2020, full range of 16 bits.
        transfer: transfer function of the image.

    Returns:
        HxWx3 uint8, R'G'B' in BT.709.
    """
    light = _light(transfer)[image]
    if transfer == Transfer.HLG:  # HLG's display transfer works on luminance
        gain = cv2.pow(cv2.transform(light, _LUMA_2020), _HLG_GAMMA - 1) * (_PEAK / _WHITE)
        light *= gain[..., None]
    brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    light *= _pressed(brightest)[..., None]
    levels = cv2.transform(light, 65535 * _TO_709)
    return np.asarray(_codes()[np.clip(levels, 0, 65535, out=levels).astype(np.uint16)], np.uint8)


def _pressed(light: Floats) -> Floats:
    """Return the gain for light: it compresses light above the knee into the room below 1."""
    room = 1 - _KNEE
    peak = (_PEAK / _WHITE - _KNEE) / room
    above = np.clip((light - _KNEE) / room, 0, peak)
    # Reinhard's curve: slope 1 at the knee, 1 at the peak
    curve = above * (1 + above / peak**2) / (1 + above)
    gain = (_KNEE + room * curve) / np.maximum(light, _KNEE)
    return np.where(above > 0, gain, 1).astype(np.float32, copy=False)


@lru_cache(maxsize=2)
def _light(transfer: Transfer) -> Floats:
    """Return the light of every code: relative to SDR white for PQ, scene light 0 to 1 for HLG."""
    code = np.arange(65536, dtype=np.float64) / 65535
    if transfer == Transfer.PQ:
        root = code ** (32 / 2523)
        light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
        return (10_000 / _WHITE * light ** (16384 / 2610)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


@lru_cache(maxsize=1)
def _codes() -> Pixels:
    """Return the 8-bit code for every 16-bit level of linear light."""
    light = np.arange(65536) / 65535
    return np.asarray(np.round(255 * light ** (1 / _SDR_GAMMA)), np.uint8)
