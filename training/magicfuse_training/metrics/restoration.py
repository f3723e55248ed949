"""How much of a degraded scene comes back, and whether it flickers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from magicfuse_ros.fuser import FusedFrame, Fuser, Output
from magicfuse_ros.media.degradations import Degradation, degrade
from magicfuse_training.metrics.bootstrap import figure_of
from magicfuse_training.metrics.frames import Frame, given
from magicfuse_training.metrics.images import psnr

U8 = npt.NDArray[np.uint8]

CONDITIONS: tuple[Degradation, ...] = ("clean", "dark", "haze")
STRENGTHS = (0.5, 0.75, 1.0)  # of degradations, in turn: mild to severe, the same in every run
FLICKER_EVERY = 10  # frames


def strength_of(index: int) -> float:
    """Return the strength, 0 to 1, that the frame of this place among its set's days gets."""
    return STRENGTHS[index % len(STRENGTHS)]


def degraded(clean: U8, kind: Degradation, index: int) -> U8:
    """Return a clean frame (H, W, 3) under a condition, the same in every run."""
    return degrade(clean, kind, strength_of(index), np.random.default_rng(index))


class Restoration:
    """Images of a frame by day against the clean one; means over frames, in dB, 0 to 60.

    psnr_input_db       of what was fused, see `images.psnr`
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
        return {n: float(np.mean(c)) for n, c in zip(names, columns, strict=False)}


def _draw(clean: U8, index: int, draw: int) -> U8:
    """Return a dark scene: the exposure is that of the frame, the photons those of the draw."""
    light, photons = np.random.default_rng(index), np.random.default_rng([index, draw])
    return degrade(clean, "dark", strength_of(index), light, sensor=photons)


def _difference(a: U8, b: U8) -> float:
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())
