"""Class maps between data sets, as data, in one place. Ids on the left are the data set's own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IGNORE = 255
STATIC = 254  # some class that is neither car, pedestrian nor bicyclist; which one is not known

# MFNet's 9 classes (MSRS): 0 unlabelled ... 8 bump. Its unlabelled pixels are labelled in one way:
# they are none of its classes. Without these negatives a model calls most of MSRS a pedestrian.
MFNET_TO_CAMVID: dict[int, int] = {
    0: STATIC,
    1: 8,  # car
    2: 9,  # person -> pedestrian
    3: 10,  # bike -> bicyclist
    4: STATIC,
    5: STATIC,
    6: STATIC,
    7: STATIC,
    8: STATIC,
}
MOVING = (8, 9, 10)  # the last ids: losses rely on it


def remap(label: npt.NDArray[np.uint8], table: dict[int, int]) -> npt.NDArray[np.uint8]:
    """Map every id of a label image (H, W) uint8; ids that the table lacks become IGNORE."""
    lookup = np.full(256, IGNORE, np.uint8)
    for source, target in table.items():
        lookup[source] = target
    return lookup[label]
