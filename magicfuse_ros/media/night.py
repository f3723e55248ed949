# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Turns the demo's video into night: a small sensor by lamp light, four stops darker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.linear_light import to_linear, to_srgb

STOPS = 4.0  # stops of missing light; dark, but still readable by eye
_GAIN = 2.4
_FULL_WELL = 8400.0  # electrons at white, at gain 1
_READ_NOISE = 5.1  # electrons, standard deviation
_LAMPS = np.array([0.93, 0.95, 1.12], np.float32)  # colour of the light
_SEED = 7


def by_night(images: Iterable[Pixels]) -> Iterator[Pixels]:
    """Yield RGB uint8 images (H, W, 3) as if at night, with fresh noise in every frame."""
    photons = np.random.default_rng(_SEED)
    for image in images:
        electrons = to_linear(image) * (_LAMPS * np.float32(_FULL_WELL * 2**-STOPS))
        noise = photons.standard_normal(electrons.shape, dtype=np.float32)
        noise *= np.sqrt(electrons + np.float32(_READ_NOISE**2))  # shot noise is nearly Gaussian
        yield to_srgb((electrons + noise) * np.float32(_GAIN / _FULL_WELL))
