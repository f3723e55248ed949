# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A camera and weather model: makes a clean road image dark and noisy, hazy, wet or blurred.

Light is handled in linear units (sRGB decoded), since exposure, haze and photon noise add up there.
Strengths run from 0 (mild) to 1 (severe). All randomness comes from the caller's generator.

    degrade(image, "dark+rain", 0.5, rng)               parameters drawn for a strength
    apply([Rain(rate_mm_h=20), Darkness(stops=4, gain=2)], image, rng)       or given by hand

Effects act in the order in which light meets them, whatever the order of their names:
air (haze, fog), rain, lens (motion, defocus), sensor (dark), codec (jpeg).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from magicfuse_ros.image_codec import Pixels
from magicfuse_training.degradations.camera import Darkness, DefocusBlur, Jpeg, MotionBlur
from magicfuse_training.degradations.effect import WHOLE, Effect, Rows, check_strength
from magicfuse_training.degradations.weather import Fog, Haze, Rain

__all__ = [
    "DEGRADATIONS", "Darkness", "DefocusBlur", "Degradation", "Effect", "Fog", "Haze", "Jpeg",
    "MotionBlur", "Rain", "Rows", "add_degradation", "apply", "degrade", "draw",
    "in_physical_order", "kinds_of", "known_kinds",
]  # fmt: skip

Degradation = Literal["clean", "dark", "haze", "blur", "jpeg", "fog", "rain", "motion", "defocus"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)

PHYSICAL_ORDER: list[type[Effect]] = [Haze, Fog, Rain, MotionBlur, DefocusBlur, Darkness, Jpeg]


def _draw_blur(strength: float, rng: np.random.Generator) -> Effect:
    kind: type[Effect] = MotionBlur if rng.random() < 0.5 else DefocusBlur
    return kind.draw(strength, rng)


# Also in the physical order, so that parameters do not depend on the order of the names.
_DRAW: dict[str, Callable[[float, np.random.Generator], Effect]] = {
    "haze": Haze.draw,
    "fog": Fog.draw,
    "rain": Rain.draw,
    "blur": _draw_blur,
    "motion": MotionBlur.draw,
    "defocus": DefocusBlur.draw,
    "dark": Darkness.draw,
    "jpeg": Jpeg.draw,
}


def known_kinds() -> tuple[str, ...]:
    """Return the kinds that can be drawn: "clean", those of DEGRADATIONS, and added ones."""
    return (*DEGRADATIONS, *(name for name in _DRAW if name not in DEGRADATIONS))


def add_degradation(name: str, effect: type[Effect], after: type[Effect]) -> None:
    """Add a kind of your own, for this process: docs/extending.md has an example.

    Args:
        name: name of the kind, to use alone or in a combination.
        effect: its effect.
        after: the effect that light meets just before it.

    Raises:
        ValueError: for a name that is taken or contains a "+", or an unknown `after`.
    """
    if name in known_kinds() or "+" in name or not name:
        raise ValueError(f"name is {name!r}; expected one without '+' that is not taken")
    if after not in PHYSICAL_ORDER:
        raise ValueError(
            f"after is {after.__name__}; expected one of "
            f"{', '.join(known.__name__ for known in PHYSICAL_ORDER)}"
        )
    PHYSICAL_ORDER.insert(PHYSICAL_ORDER.index(after) + 1, effect)
    _DRAW[name] = effect.draw


def kinds_of(degradation: str) -> list[str]:
    """Split a combination such as "dark+rain" into its kinds, in the physical order; clean is [].

    Raises:
        ValueError: for an unknown kind, a kind named twice, or "clean" together with another.
    """
    names = degradation.split("+")
    for name in names:
        if name not in (known := known_kinds()):
            raise ValueError(
                f"degradation is {name!r}; expected one of {', '.join(known)}, "
                "or several joined by +"
            )
    if len(set(names)) < len(names) or ("clean" in names and len(names) > 1):
        raise ValueError(f"degradation is {degradation!r}; expected different kinds, none clean")
    return [name for name in _DRAW if name in names]


def draw(degradation: str, strength: float, rng: np.random.Generator) -> list[Effect]:
    """Draw the parameters of a kind or a combination, all at one strength.

    Raises:
        ValueError: as for `kinds_of`, and for a strength outside [0, 1].
    """
    check_strength(strength)
    return [_DRAW[kind](strength, rng) for kind in kinds_of(degradation)]


def in_physical_order(effects: Sequence[Effect]) -> list[Effect]:
    """Return effects in the order in which light meets them."""
    return sorted(effects, key=lambda effect: PHYSICAL_ORDER.index(type(effect)))


def apply(
    effects: Sequence[Effect], image: Pixels, noise: np.random.Generator, rows: Rows = WHOLE
) -> Pixels:
    """Apply effects in the physical order to an RGB uint8 image (H, W, 3); return a new one.

    `noise` and `rows`: see Effect.
    """
    image = np.array(image, dtype=np.uint8)
    for effect in in_physical_order(effects):
        image = effect.apply(image, noise, rows)
    return image


def degrade(
    image: Pixels,
    kind: str,
    strength: float,
    rng: np.random.Generator,
    rows: Rows = WHOLE,
    sensor: np.random.Generator | None = None,
) -> Pixels:
    """Degrade one RGB uint8 image (H, W, 3) and return a new one of the same shape.

    Args:
        image: what a perfect camera would see in good weather.
        kind: one of DEGRADATIONS, or several joined by "+".
        strength: 0 (mild) to 1 (severe), of all kinds.
        rng: draws the parameters.
        rows: first and last row that a crop shows, as fractions of the camera's full height.
        sensor: draws what differs from frame to frame; by default `rng`. To keep the light and
            weather of a video, give every frame a new `rng` of the same seed, but share `sensor`.

    Raises:
        ValueError: for an unknown kind, or a strength outside [0, 1].
    """
    return apply(draw(kind, strength, rng), image, sensor or rng, rows)
