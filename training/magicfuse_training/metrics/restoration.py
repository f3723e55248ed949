"""How much of a degraded scene comes back, and whether it flickers."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from magicfuse_ros.fuser import FusedFrame, Fuser, Output
from magicfuse_ros.media.degradations import Darkness, Degradation, apply, degrade
from magicfuse_training.metrics.bootstrap import figure_of
from magicfuse_training.metrics.frames import Frame, given
from magicfuse_training.metrics.images import luma, ms_ssim, psnr, ssim

U8 = npt.NDArray[np.uint8]

Condition = Degradation | Literal["noise"]
CONDITIONS: tuple[Condition, ...] = ("clean", "dark", "haze")
ALL_CONDITIONS: tuple[Condition, ...] = ("clean", "dark", "haze", "rain", "noise")
STRENGTHS = (0.5, 0.75, 1.0)  # of degradations, in turn: mild to severe, the same in every run
FLICKER_EVERY = 10  # frames


def strength_of(index: int) -> float:
    """Return the strength, 0 to 1, that the frame of this place among its set's days gets."""
    return STRENGTHS[index % len(STRENGTHS)]


def degraded(clean: U8, kind: Condition, index: int) -> U8:
    """Return a clean frame (H, W, 3) under a condition, the same in every run.

    "noise" is an exposure 3 to 5 stops too short, which the camera's gain brings back.
    """
    strength, rng = strength_of(index), np.random.default_rng(index)
    if kind != "noise":
        return degrade(clean, kind, strength, rng)
    stops = 1 + 4 * strength
    return apply([Darkness(stops=stops, gain=2.0**stops)], clean, rng)


class Restoration:
    """Images of a frame by day against the clean one; means over frames.

    psnr_input_db       of what was fused, dB, 0 to 60: see `images.psnr`
    psnr_restored_db    of the restored image
    psnr_mag_image_db   of MagImg, which shows heat as well
    """

    outputs: frozenset[Output] = frozenset({"restored", "mag_image"})

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float]] = []

    def applies(self, frame: Frame) -> bool:
        """Return whether it is clean: by day."""
        return not frame.night

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Compare the images of one frame with the clean one."""
        shown = (image, given(fused.restored), given(fused.mag_image))
        before, restored, mag_image = (psnr(x, frame.visible) for x in shown)
        self._rows.append((before, restored, mag_image))

    def scores(self) -> dict[str, object]:
        """Return the scores."""
        names = ("psnr_input_db", "psnr_restored_db", "psnr_mag_image_db")
        columns = zip(*self._rows, strict=True)
        return {name: figure_of(c) for name, c in zip(names, columns, strict=False)}


class Structure:
    """The luma of what was fused, and of the restored image, against the clean frame's by day.

    ssim_input, ssim_restored         means over frames, -1 to 1: see `images.ssim`
    ms_ssim_input, ms_ssim_restored   0 to 1; NaN for small frames: see `images.ms_ssim`
    """

    outputs: frozenset[Output] = frozenset({"restored"})

    def __init__(self) -> None:
        self._rows: dict[str, list[float]] = {}

    def applies(self, frame: Frame) -> bool:
        """Return whether it is clean: by day."""
        return not frame.night

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Compare both images of one frame with the clean one."""
        clean = luma(frame.visible)
        for name, shown in (("input", luma(image)), ("restored", luma(given(fused.restored)))):
            self._rows.setdefault(f"ssim_{name}", []).append(ssim(shown, clean))
            self._rows.setdefault(f"ms_ssim_{name}", []).append(ms_ssim(shown, clean))

    def scores(self) -> dict[str, object]:
        """Return the scores."""
        return {name: figure_of(values) for name, values in self._rows.items()}


class Flicker:
    """How much two outputs of one dark scene differ, of which only the photons do.

    Means of |difference| over pixels and channels, 0 to 255, and over every 10th frame.

    flicker_input       of the two dark images
    flicker_mag_image   of the two MagImg
    """

    outputs: frozenset[Output] = frozenset()

    def __init__(self, fuser: Fuser) -> None:
        """Take the fuser, to be run on both."""
        self._fuser = fuser
        self._rows: list[tuple[float, float]] = []

    def applies(self, frame: Frame) -> bool:
        """Return whether it is one of the 10th, by day."""
        return not frame.night and frame.index % FLICKER_EVERY == 0

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Darken one frame twice, fuse both and compare."""
        first, second = (_draw(frame.visible, frame.index, draw) for draw in range(2))
        fused_twice = (self._fuser(x, frozenset({"mag_image"})) for x in (first, second))
        a, b = (given(frame.mag_image) for frame in fused_twice)
        self._rows.append((_difference(first, second), _difference(a, b)))

    def scores(self) -> dict[str, object]:
        """Return the scores."""
        names = ("flicker_input", "flicker_mag_image")
        columns = zip(*self._rows, strict=True)
        return {n: figure_of(c) for n, c in zip(names, columns, strict=False)}


def _draw(clean: U8, index: int, draw: int) -> U8:
    """Return a dark scene: the exposure is that of the frame, the photons those of the draw."""
    light, photons = np.random.default_rng(index), np.random.default_rng([index, draw])
    return degrade(clean, "dark", strength_of(index), light, sensor=photons)


def _difference(a: U8, b: U8) -> float:
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())
