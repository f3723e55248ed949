# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What the camera does to an image: blur, exposure and noise, compression."""

from __future__ import annotations

import cv2
import numpy as np
from pydantic import Field

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.linear_light import Linear, to_linear, to_srgb
from magicfuse_training.degradations.effect import WHOLE, Effect, Grid, LinearColor, Rows, cut_grid


class MotionBlur(Effect):
    """The camera moves along a straight line during the exposure.

    Blur acts on sRGB codes, not on linear light: the two would differ most for light brighter than
    white, which the clean image has already clipped.
    """

    reach_px: int = Field(ge=1, description="half length of the line, in pixels of the image")
    angle: float = Field(
        default=0.0, description="direction of the line, in radians; 0 is horizontal"
    )

    @classmethod
    def _draw(cls, strength: float, rng: np.random.Generator) -> MotionBlur:
        return cls(reach_px=1 + round(6 * strength), angle=rng.uniform(0, np.pi))

    def kernel(self) -> Linear:
        """Return the weights of the pixels that a point is smeared over, (n, n), n odd, sum 1."""
        reach = self.reach_px
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        dx, dy = round(reach * np.cos(self.angle)), round(reach * np.sin(self.angle))
        cv2.line(kernel, (reach - dx, reach - dy), (reach + dx, reach + dy), 1.0)
        return np.asarray(kernel / kernel.sum(), np.float32)

    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """See Effect."""
        return np.asarray(cv2.filter2D(image, -1, self.kernel()), dtype=np.uint8)


class DefocusBlur(Effect):
    """The lens is out of focus; a Gaussian on sRGB codes models its blur disc."""

    sigma_px: float = Field(gt=0, description="standard deviation in pixels of the image")

    @classmethod
    def _draw(cls, strength: float, rng: np.random.Generator) -> DefocusBlur:
        return cls(sigma_px=0.6 + 2.0 * strength)

    def kernel(self) -> Linear:
        """Return the weights of the pixels that a point is smeared over, (n, n), n odd, sum 1."""
        line = cv2.getGaussianKernel(2 * round(3 * self.sigma_px) + 1, self.sigma_px, cv2.CV_32F)
        return np.asarray(line @ line.T, np.float32)

    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """See Effect."""
        return np.asarray(cv2.GaussianBlur(image, (0, 0), self.sigma_px), dtype=np.uint8)


class Darkness(Effect):
    """Night: less light, lamps instead of the sun, photon and read noise, gain."""

    stops: float = Field(ge=0, description="stops of light that are missing; each halves it")
    gain: float = Field(default=1.0, gt=0, description="factor of the camera on the signal")
    full_well: float = Field(default=6000.0, gt=0, description="electrons at white, at gain 1")
    read_noise: float = Field(
        default=4.0, ge=0, description="standard deviation of the read noise, in electrons"
    )
    cast: LinearColor = Field(
        default=(1.0, 1.0, 1.0), description="colour of the lamps; mean irrelevant"
    )
    light_stops: Grid = Field(
        default=((0.0,),), description="pools of light: stops added, on a coarse grid"
    )
    grain: float = Field(
        default=1.0, ge=1, description="pixels of the image per pixel of the sensor, across"
    )

    @classmethod
    def _draw(cls, strength: float, rng: np.random.Generator) -> Darkness:
        gain = 2.0 ** rng.uniform(0.0, 2.0)
        full_well = rng.uniform(3000.0, 9000.0)
        read_noise = rng.uniform(2.0, 6.0)
        cast = rng.uniform(0.85, 1.15, 3).astype(np.float32)
        cells = (int(rng.integers(3, 8)), int(rng.integers(4, 10)))
        light = rng.standard_normal(cells, np.float32) * np.float32(rng.uniform(0.2, 1.5))
        return cls(
            stops=2.0 + 4.0 * strength,  # the gain restores up to 2 of them
            gain=gain,
            full_well=full_well,
            read_noise=read_noise,
            cast=tuple(cast.tolist()),
            light_stops=tuple(map(tuple, light.tolist())),
        )

    def cut(self, rows: Rows, columns: Rows) -> Darkness:
        """See Effect."""
        return self.model_copy(update={"light_stops": cut_grid(self.light_stops, rows, columns)})

    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """See Effect; `noise` draws the photons."""
        height, width = image.shape[:2]
        pools = np.array(self.light_stops, np.float32)
        pools = cv2.resize(pools, (width, height), interpolation=cv2.INTER_CUBIC)
        light = np.exp2(pools) * np.float32(2.0**-self.stops)
        cast = np.array(self.cast, np.float32)
        electrons = to_linear(image) * (light[..., None] * (cast / cast.mean() * self.full_well))
        sensor = max(1, round(height / self.grain)), max(1, round(width / self.grain)), 3
        draw = noise.standard_normal(sensor, dtype=np.float32)
        if sensor != electrons.shape:  # as noisy as the sensor's own image, enlarged
            draw = cv2.resize(draw, (width, height), interpolation=cv2.INTER_LINEAR)
        # Shot noise is Gaussian at these counts.
        draw *= np.sqrt(electrons + np.float32(self.read_noise**2))
        return to_srgb((electrons + draw) * np.float32(self.gain / self.full_well))


class Jpeg(Effect):
    """Compression by the camera or by the transport of its images."""

    quality: int = Field(ge=1, le=100, description="quality of libjpeg; 100 is best")

    @classmethod
    def _draw(cls, strength: float, rng: np.random.Generator) -> Jpeg:
        return cls(quality=round(70 - 55 * strength))

    def apply(self, image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE) -> Pixels:
        """See Effect."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
