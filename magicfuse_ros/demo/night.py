"""Makes night of the demo's video: a small sensor by lamp light, four stops darker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from magicfuse_ros.media.linear_light import Image, to_linear, to_srgb

STOPS = 4.0  # of light that are missing; dark, but still readable by eye
_GAIN = 2.4
_FULL_WELL = 8400.0  # electrons at white, at gain 1
_READ_NOISE = 5.1  # electrons, standard deviation
_LAMPS = np.array([0.93, 0.95, 1.12], np.float32)  # colour of the light
_SEED = 7


def by_night(images: Iterable[Image]) -> Iterator[Image]:
    """Yield RGB uint8 images (H, W, 3) as by night, with fresh noise in every frame."""
    photons = np.random.default_rng(_SEED)
    for image in images:
        electrons = to_linear(image) * (_LAMPS * np.float32(_FULL_WELL * 2**-STOPS))
        noise = photons.standard_normal(electrons.shape, dtype=np.float32)
        noise *= np.sqrt(electrons + np.float32(_READ_NOISE**2))  # shot noise is nearly Gaussian
        yield to_srgb((electrons + noise) * np.float32(_GAIN / _FULL_WELL))
