"""What an adaptation follows, besides its frames and its budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptConfig:
    """The rules of an adaptation; shares are 0 to 1.

    Attributes:
        frames: most frames that are kept.
        least: fewest; a recording with fewer is refused.
        held_out: share of the kept frames that is not trained on: the last ones.
        least_held_out: fewest of those.
        confident: of a mask, from which on a pixel is a label, and is judged by.
        labelled: least share of all training pixels that must get a label.
        share: of the trained weights in the result; the rest is the old bundle's (WiSE-FT,
            arXiv 2109.01903): the camera's streets are learnt, and the others not forgotten.
        learning_rate: lower than `few_step`'s, whose data sets hold more than one camera's streets.
    """

    frames: int = 1200
    least: int = 40
    held_out: float = 0.15
    least_held_out: int = 8
    confident: float = 0.85
    labelled: float = 0.05
    share: float = 0.6
    learning_rate: float = 1.5e-4
