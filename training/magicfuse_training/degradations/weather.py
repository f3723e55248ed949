# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What the weather does to light on its way to the camera: haze, fog, rain.

Distances come from a prior for road scenes. Haze has the simplest one: flat ground, with everything
above the horizon as far away as the horizon. Fog and rain need distances in metres and assume a
street: a camera 1.5 m above the road, houses or trees 10 m to either side, 18 m above it, and an
end after 30 m. Lengths in the image assume a lens whose focal length equals the image's height (a
vertical view of 53 degrees).
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import cv2
import numpy as np
from pydantic import Field

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.linear_light import Linear, to_linear, to_srgb
from magicfuse_training.degradations.effect import WHOLE, Effect, Grid, LinearColor, Rows, cut_grid

V = TypeVar("V", bound="Veil")
Horizon = Annotated[
    float, Field(gt=0, lt=1, description="row of the horizon, as a fraction of the height")
]
_ROAD_M, _SIDE_M, _TOP_M, _END_M = 1.5, 10.0, 18.0, 30.0
_CONTRAST_AT_VISIBILITY = 0.05  # meteorologists define the visibility this way
_SMALLEST_MM = 1.0  # smaller drops are too faint to stand out from the veil
_APERTURE_M = 0.003
_BANDS = ((0.5, 1.2), (1.2, 2.4), (2.4, 4.0))  # distances of drops, metres


def _air(image: Pixels, transmission: Linear, airlight: LinearColor) -> Linear:
    """Apply Koschmieder's law, I = J t + A (1 - t), in linear light."""
    light = np.array(airlight).astype(np.float32)
    return np.asarray(to_linear(image) * transmission + light * (1.0 - transmission), np.float32)


class Haze(Effect):
    """Dry, bright haze in drifts, thickest at the horizon."""

    density: float = Field(ge=0, description="optical thickness at the horizon: 1 leaves 37 %")
    airlight: LinearColor = Field(default=(0.7, 0.7, 0.7), description="linear light of the haze")
    horizon: Horizon = 0.42
    drifts: Grid = Field(
        default=((1.0,),), description="factors on the thickness, on a coarse grid"
    )

    @classmethod
    def _draw(cls, strength: float, rng: np.random.Generator) -> Haze:
        horizon = rng.uniform(0.35, 0.5)
        drifts = rng.uniform(0.6, 1.4, (4, 5))
        airlight = rng.uniform(0.5, 0.85) * rng.uniform(0.95, 1.05, 3)
        return cls(
            density=0.7 + 2.0 * strength,
            airlight=tuple(airlight.tolist()),
            horizon=horizon,
            drifts=tuple(map(tuple, drifts.tolist())),
        )

    def cut(self, rows: Rows, columns: Rows) -> Haze:
        """See Effect."""
        return self.model_copy(update={"drifts": cut_grid(self.drifts, rows, columns)})

    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """See Effect."""
        height, width = image.shape[:2]
        row = np.linspace(rows[0], rows[1], height, dtype=np.float32)
        depth = 0.06 / np.clip(row - self.horizon, 0.06, None)  # 1 at the horizon and above
        drifts = np.array(self.drifts).astype(np.float32)
        drifts = cv2.resize(drifts, (width, height), interpolation=cv2.INTER_CUBIC)
        transmission = np.exp(-self.density * depth[:, None] * drifts)[..., None]
        return to_srgb(_air(image, transmission, self.airlight))


class Veil(Effect):
    """Drops in the air of a street, each too small or too far away to be seen by itself."""

    visibility_m: float = Field(gt=0, description="distance at which 5 % of the contrast is left")
    airlight: LinearColor = Field(description="linear light of the veil")
    horizon: Horizon = 0.42
    columns: Rows = Field(
        default=WHOLE, description="columns that the image shows, as fractions of its frame's width"
    )

    def cut(self: V, rows: Rows, columns: Rows) -> V:
        """See Effect."""
        return self.model_copy(update={"columns": columns})

    def transmission(self, height: int, width: int, rows: Rows = WHOLE) -> Linear:
        """Return the fraction of the light that gets through from every pixel, (H, W, 1)."""
        full_height = height / (rows[1] - rows[0])
        row = np.linspace(rows[0], rows[1], height, dtype=np.float32)[:, None] - np.float32(
            self.horizon
        )
        _, middle = self._across(width)
        side = (np.arange(width, dtype=np.float32) + 0.5 - np.float32(middle)) / full_height
        # The inverse distance of each surface. Their root sum of squares follows the nearest
        # surface, with rounded edges.
        nearness = np.hypot(
            np.where(row > 0, row / _ROAD_M, -row / _TOP_M), np.hypot(side / _SIDE_M, 1 / _END_M)
        )
        extinction = -np.log(_CONTRAST_AT_VISIBILITY) / self.visibility_m
        return np.asarray(np.exp(-extinction / nearness), np.float32)[..., None]

    def _across(self, width: int) -> tuple[float, float]:
        """Return the width of the frame, and the column of its middle, in pixels of the image."""
        first, last = self.columns
        full = width / (last - first)
        return full, (0.5 - first) * full


class Fog(Veil):
    """Uniform white fog, dense enough to hide near objects."""

    airlight: LinearColor = Field(default=(0.75, 0.75, 0.75), description="linear light of the fog")

    @classmethod
    def _draw(cls, strength: float, rng: np.random.Generator) -> Fog:
        light = rng.uniform(0.6, 0.9)
        return cls(
            visibility_m=100.0 * 0.22**strength,  # down to 22 m
            airlight=(light, light, light * rng.uniform(1.0, 1.04)),
            horizon=rng.uniform(0.38, 0.46),
        )

    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """See Effect."""
        transmission = self.transmission(image.shape[0], image.shape[1], rows)
        return to_srgb(_air(image, transmission, self.airlight))


class Rain(Veil):
    """Falling drops as streaks, and a veil of drops that are too far away to see one by one.

    Drops have the sizes of Marshall and Palmer (10.1175/1520-0469(1948)005<0165:TDORWS>2.0.CO;2)
    and fall at the speed that Atlas et al. (10.1029/RG011i001p00001) fitted. A drop shows the sky
    from almost all directions, so it is brighter than what it hides. It crosses a pixel in a small
    part of the exposure, so it hides little of it (Garg and Nayar, 10.1007/s11263-006-0028-6).
    """

    rate_mm_h: float = Field(
        gt=0, description="rain in mm per hour; 2.5 is moderate, 50 a cloudburst"
    )
    exposure_s: float = Field(default=0.01, gt=0, description="sets the length of the streaks")
    wind_m_s: float = Field(default=0.0, description="across the view")
    speed_m_s: float = Field(
        default=8.0, ge=0, description="speed of the vehicle; tilts the streaks"
    )
    visibility_m: float = Field(default=400.0, gt=0, description="in the veil")
    airlight: LinearColor = Field(default=(0.5, 0.5, 0.5), description="linear light of the veil")
    sky: float = Field(default=3.0, ge=0, description="light of a drop, as a multiple of the veil")

    @classmethod
    def _draw(cls, strength: float, rng: np.random.Generator) -> Rain:
        light = rng.uniform(0.35, 0.6)
        return cls(
            rate_mm_h=5.0 * 20.0**strength,
            exposure_s=rng.uniform(0.006, 0.014),
            wind_m_s=rng.normal(0.0, 1.5),
            speed_m_s=rng.uniform(0.0, 12.0),
            visibility_m=400.0 * 0.2**strength,
            airlight=(light, light, light * rng.uniform(1.0, 1.05)),
            sky=rng.uniform(2.0, 4.0),
            horizon=rng.uniform(0.38, 0.46),
        )

    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """See Effect; `noise` draws the drops."""
        height, width = image.shape[:2]
        light = _air(image, self.transmission(height, width, rows), self.airlight)
        cover = self.cover(height, width, noise, rows)[..., None]
        drop = self.sky * np.array(self.airlight, np.float32)
        return to_srgb(light + cover * (drop - light))

    def cover(
        self, height: int, width: int, noise: np.random.Generator, rows: Rows = WHOLE
    ) -> Linear:
        """Return for what part of the exposure drops hide each pixel, float32 (H, W), 0 to 1."""
        full_height = height / (rows[1] - rows[0])
        full_width, column = self._across(width)
        focal = max(full_height, 0.75 * full_width)
        middle = np.array([column, (self.horizon - rows[0]) * full_height])
        slope = 4.1 * self.rate_mm_h**-0.21  # per mm of diameter
        per_m3 = 8000.0 / slope * np.exp(-slope * _SMALLEST_MM)
        total = np.zeros((height, width), np.float32)
        for near, far in _BANDS:
            longest = focal * 10.0 * self.exposure_s / near  # pixels
            samples = int(np.clip(longest, 4, 200))
            # Drops start up to a tenth of the image outside it, so that streaks cross the edge.
            volume = 1.44 * width * height / focal**2 * (far**3 - near**3) / 3
            count = int(noise.poisson(per_m3 * volume))
            z = np.cbrt(noise.uniform(near**3, far**3, count))
            pixel = noise.uniform(-0.1, 1.1, (count, 2)) * (width, height)
            diameter = np.minimum(_SMALLEST_MM + noise.exponential(1 / slope, count), 6.0)
            fall = 9.65 - 10.3 * np.exp(-0.6 * diameter)
            time = self.exposure_s * np.linspace(-0.5, 0.5, samples)
            depth = np.maximum(z[:, None] - self.speed_m_s * time, 0.1)
            start = (pixel - middle) / focal * z[:, None]  # metres, halfway through the exposure
            x = (start[:, :1] + self.wind_m_s * time) / depth * focal + middle[0]
            y = (start[:, 1:] + fall[:, None] * time) / depth * focal + middle[1]
            area = np.pi / 4 * (focal * diameter * 1e-3 / z) ** 2 / samples
            column, line = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
            inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
            index = (line * width + column)[inside]
            hits = np.bincount(index, np.broadcast_to(area[:, None], x.shape)[inside], total.size)
            # The lens is focused far away: a near drop looks as wide as the aperture at its place.
            sigma = max(0.35 * focal * _APERTURE_M / np.sqrt(near * far), 0.6)
            hits = hits.reshape(height, width).astype(np.float32)
            total += cv2.GaussianBlur(hits, (0, 0), sigma)
        return np.minimum(total, 1.0)
