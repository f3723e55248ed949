"""Settings of an adaptation, apart from its frames and its budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptConfig:
    """Settings of an adaptation; shares are 0 to 1.

    Attributes:
        frames: the most frames that are kept.
        least: the fewest; a recording that yields fewer is rejected.
        held_out: share of the kept frames that are not used for training: the last ones.
        least_held_out: the fewest held-out frames.
        confident: least confidence of a mask pixel that serves as a label or is judged.
        labelled: least share of all training pixels that must get a label.
        share: weight of the trained bundle in the result; the rest comes from the old bundle
            (WiSE-FT, arXiv 2109.01903). The result learns the camera's streets and does not forget
            the others.
        learning_rate: lower than that of `few_step`, whose data sets cover more than one camera's
            streets.
    """

    frames: int = 1200
    least: int = 40
    held_out: float = 0.15
    least_held_out: int = 8
    confident: float = 0.85
    labelled: float = 0.05
    share: float = 0.6
    learning_rate: float = 1.5e-4
