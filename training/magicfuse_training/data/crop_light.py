# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Changes of light, of clothes and of places in one crop, on its arrays."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_training.arrays import U8
from magicfuse_training.data.crop_draws import Light

Arrays = dict[str, npt.NDArray[Any]]
# Pixels over which the gain on clothes fades: an edge sharper than a lens makes would reveal the
# gain.
CLOTHES_EDGE = 5


class Relight:
    """Applies one change of light to images (h, w, 3) uint8."""

    def __init__(self, light: Light) -> None:
        table = (np.arange(256)[:, None] / 255.0) ** light.gamma
        table = np.clip(table * np.array(light.gains), 0, 1)
        self.lut = (table * 255).round().astype(np.uint8)[None]
        self.saturation = light.saturation

    def __call__(self, image: U8) -> U8:
        image = np.asarray(cv2.LUT(image, self.lut), dtype=np.uint8)
        if self.saturation == 1.0:
            return image
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        mixed = cv2.addWeighted(image, self.saturation, gray, 1 - self.saturation, 0)
        return np.asarray(mixed, dtype=np.uint8)


def dress_darkly(crop: Arrays, gain: float, people: tuple[int, ...]) -> None:
    """Darken the people of a crop in place.

    `visible` and `target` are (h, w, 3) uint8; `label` (h, w) shows people as the ids `people`.
    """
    mask = np.isin(crop["label"], people).astype(np.float32)
    mask = cv2.blur(mask, (CLOTHES_EDGE, CLOTHES_EDGE))[..., None]
    for name in ("visible", "target"):
        crop[name] = (crop[name] * (1 - (1 - gain) * mask)).round().astype(np.uint8)
