"""A camera and weather model: makes a clean road image dark and noisy, hazy, blurred or compressed.

Light is handled in linear units (sRGB decoded), since exposure, haze and photon noise add up there.
Strengths run from 0 (mild) to 1 (severe). All randomness comes from the caller's generator.
"""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Linear = npt.NDArray[np.float32]
Degradation = Literal["clean", "dark", "haze", "blur", "jpeg"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)

_CODE = np.arange(256) / 255.0
_TO_LINEAR = np.where(_CODE <= 0.04045, _CODE / 12.92, ((_CODE + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
_LEVELS = 8191  # fine enough that the darkest sRGB codes are still told apart
_VALUE = np.arange(_LEVELS + 1) / _LEVELS
_TO_SRGB = np.round(
    255 * np.where(_VALUE <= 0.0031308, _VALUE * 12.92, 1.055 * _VALUE ** (1 / 2.4) - 0.055)
).astype(np.uint8)


def to_linear(image: Image) -> Linear:
    """Decode sRGB: uint8 to linear light, float32 in [0, 1], same shape."""
    return _TO_LINEAR[image]


def to_srgb(linear: Linear) -> Image:
    """Encode linear light as sRGB uint8; values outside [0, 1] are clipped, as a sensor does."""
    return _TO_SRGB[(np.clip(linear, 0.0, 1.0) * _LEVELS + 0.5).astype(np.int16)]


def darken(
    image: Image,
    strength: float,
    rng: np.random.Generator,
    sensor: np.random.Generator | None = None,
) -> Image:
    """Take the image at night: less light, lamps instead of the sun, photon and read noise, gain.

    `strength` 0 to 1 removes 2 to 6 stops, of which the camera's gain brings up to 2 back.
    `sensor` draws the noise, so that the frames of a video can share all else; by default `rng`.
    """
    height, width = image.shape[:2]
    stops = 2.0 + 4.0 * strength
    gain = 2.0 ** rng.uniform(0.0, 2.0)
    full_well = rng.uniform(3000.0, 9000.0)  # electrons at white
    read_noise = rng.uniform(2.0, 6.0)  # electrons
    cast = rng.uniform(0.85, 1.15, 3).astype(np.float32)  # lamps are not white
    light = _illumination(height, width, rng) * np.float32(2.0**-stops)
    electrons = to_linear(image) * (light[..., None] * (cast / cast.mean() * full_well))
    noise = (sensor or rng).standard_normal(electrons.shape, dtype=np.float32)
    noise *= np.sqrt(
        electrons + np.float32(read_noise**2)
    )  # shot noise is Gaussian at these counts
    return to_srgb((electrons + noise) * np.float32(gain / full_well))


def _illumination(height: int, width: int, rng: np.random.Generator) -> Linear:
    """Pools of lamp light in the dark: a smooth log-normal field, float32 (height, width)."""
    cells = (int(rng.integers(3, 8)), int(rng.integers(4, 10)))
    stops = rng.standard_normal(cells, np.float32) * np.float32(rng.uniform(0.2, 1.5))
    field = cv2.resize(stops, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.exp2(field), np.float32)


def haze(
    image: Image, strength: float, rng: np.random.Generator, rows: tuple[float, float] = (0.0, 1.0)
) -> Image:
    """Add haze by Koschmieder's law, I = J t + A (1 - t), t = exp(-beta d).

    The depth d is a prior for road scenes: a flat ground below the horizon, far above it, with
    smooth variation. `rows` tells which part of the camera's full height a crop shows.
    """
    height, width = image.shape[:2]
    horizon = rng.uniform(0.35, 0.5)
    row = np.linspace(rows[0], rows[1], height, dtype=np.float32)
    depth = 0.06 / np.clip(row - horizon, 0.06, None)  # 1 at the horizon and above
    wobble = cv2.resize(
        rng.uniform(0.6, 1.4, (4, 5)).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    transmission = np.exp(-(0.7 + 2.0 * strength) * depth[:, None] * wobble)[..., None]
    airlight = (rng.uniform(0.5, 0.85) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    linear = to_linear(image)
    return to_srgb(linear * transmission + airlight * (1.0 - transmission))


def blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Blur by motion along a random direction, or by defocus (half of the cases each)."""
    if rng.random() < 0.5:
        length = 3 + 2 * round(6 * strength)
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        middle = length // 2
        dx, dy = round(middle * np.cos(angle)), round(middle * np.sin(angle))
        cv2.line(kernel, (middle - dx, middle - dy), (middle + dx, middle + dy), 1.0)
        return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.6 + 2.0 * strength), dtype=np.uint8)


def compress(image: Image, strength: float) -> Image:
    """Encode as JPEG, quality 70 down to 15, and decode."""
    quality = round(70 - 55 * strength)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def degrade(
    image: Image,
    kind: Degradation,
    strength: float,
    rng: np.random.Generator,
    rows: tuple[float, float] = (0.0, 1.0),
    sensor: np.random.Generator | None = None,
) -> Image:
    """Degrade one RGB uint8 image (H, W, 3) and return a new one of the same shape.

    A video keeps its light and weather where every frame gets a new `rng` of one seed, and one
    `sensor` generator draws the noise of all frames.

    Raises:
        ValueError: for an unknown kind, or a strength outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength}; expected 0 to 1")
    if kind == "clean":
        return np.array(image, dtype=np.uint8)
    if kind == "dark":
        return darken(image, strength, rng, sensor)
    if kind == "haze":
        return haze(image, strength, rng, rows)
    if kind == "blur":
        return blur(image, strength, rng)
    if kind == "jpeg":
        return compress(image, strength)
    raise ValueError(f"degradation is {kind!r}; expected one of {', '.join(DEGRADATIONS)}")
