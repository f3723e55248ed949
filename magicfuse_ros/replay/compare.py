# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Compares the outputs in two bags frame by frame.

Frames are matched by their header stamp. If a stamp occurs several times, as in a bag that was
played in a loop, the first matches the first, the second the second, and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import log10
from pathlib import Path

import numpy as np

from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.bag_reader import image_topics, open_bag
from magicfuse_ros.replay.comparison import Comparison, Difference, Flicker
from magicfuse_ros.topics import MAG_IMAGE, MASK, NODE

MEASURED = (MASK, MAG_IMAGE, "restored_image", "thermal_estimate", "thermal_uncertainty")
FLICKERING = (MASK, MAG_IMAGE)

Key = tuple[int, int]  # stamp of the header in ns, number of earlier frames with it


def compare(new: Path, reference: Path, node: str = NODE) -> Comparison:
    """Compare the outputs of `node` in two bags.

    Args:
        new: the bag to check.
        reference: the bag of an earlier run.
        node: full name of the node in both bags.

    Raises:
        MediaError: if a bag cannot be read or holds no output of the node, if the bags have no
            output in common, or if the sizes of a frame's images differ.
    """
    expected = compared_outputs(reference, node)
    held = compared_outputs(new, node)
    both = [name for name in expected if name in held]
    if not both:
        raise MediaError(f"'{new}' and '{reference}' hold different outputs of {node}")
    found = Comparison(
        new=str(new),
        reference=str(reference),
        differences=[],
        missing=[],
        extra=[],
        missing_outputs=[name for name in expected if name not in both],
    )
    our_bag, their_bag = (
        {name: BagSource(bag, f"{node}/{name}") for name in both} for bag in (new, reference)
    )
    our_keys, their_keys = _common_keys(our_bag.values()), _common_keys(their_bag.values())
    shared = set(our_keys) & set(their_keys)
    found.missing = [key[0] for key in their_keys if key not in shared]
    found.extra = [key[0] for key in our_keys if key not in shared]
    differences = {key: Difference(key[0]) for key in their_keys if key in shared}
    for name in both:
        before: tuple[Pixels, Pixels] | None = None
        for key, ours, theirs in _pairs(our_bag[name], their_bag[name], shared):
            difference = differences[key]
            if name == MASK:
                difference.mask_agreement = round(100.0 - _changed_percent(ours, theirs), 6)
            else:
                difference.psnr_db[name] = psnr_db(ours, theirs)
            if name in FLICKERING:
                if before is not None and before[0].shape == ours.shape:
                    change = _changed_percent if name == MASK else _mean_change
                    difference.flicker[name] = Flicker(
                        round(change(ours, before[0]), 4), round(change(theirs, before[1]), 4)
                    )
                before = ours, theirs
    found.differences = list(differences.values())
    return found


def psnr_db(image: Pixels, reference: Pixels) -> float | None:
    """Return the peak signal-to-noise ratio of two uint8 images; None if they are equal."""
    error = np.subtract(image, reference, dtype=np.int16).astype(np.float32)
    mean_square = float(np.square(error).mean(dtype=np.float64))
    return round(10 * log10(255**2 / mean_square), 4) if mean_square else None


def _changed_percent(mask: Pixels, other: Pixels) -> float:
    return 100.0 * float((mask != other).mean())


def _mean_change(image: Pixels, other: Pixels) -> float:
    return float(np.abs(np.subtract(image, other, dtype=np.int16)).mean(dtype=np.float64))


def compared_outputs(bag: Path, node: str) -> list[str]:
    """Return the comparable outputs of `node` that a bag holds.

    Raises:
        MediaError: if the bag cannot be read or holds none of them.
    """
    with open_bag(bag) as reader:
        topics = image_topics(reader)
    held = [name for name in MEASURED if f"{node}/{name}" in topics]
    if not held:
        raise MediaError(
            f"rosbag2 '{bag}' holds none of the outputs that are compared; "
            f"expected one of {', '.join(f'{node}/{name}' for name in MEASURED)}"
        )
    return held


def _common_keys(outputs: Iterable[BagSource]) -> list[Key]:
    """Return the keys of the frames that have all outputs, in the order of the first output."""
    keys = [_keys(output.header_stamps()) for output in outputs]
    everywhere = set(keys[0]).intersection(*keys[1:])
    return [key for key in keys[0] if key in everywhere]


def _keys(stamps: Iterable[int]) -> list[Key]:
    count: Counter[int] = Counter()
    keys = []
    for stamp in stamps:
        keys.append((stamp, count[stamp]))
        count[stamp] += 1
    return keys


def _pairs(
    new: BagSource, reference: BagSource, shared: set[Key]
) -> Iterator[tuple[Key, Pixels, Pixels]]:
    """Yield the matching frames of both bags."""
    ours, theirs = _frames(new, shared), _frames(reference, shared)
    # Frames wait here for their match; few do, because both bags are in the camera's order.
    waiting: tuple[dict[Key, Pixels], dict[Key, Pixels]] = ({}, {})
    for pair in zip(ours, theirs, strict=True):
        for side, (key, image) in enumerate(pair):
            waiting[side][key] = image
        for key in {pair[0][0], pair[1][0]}:
            if key in waiting[0] and key in waiting[1]:
                image, other = waiting[0].pop(key), waiting[1].pop(key)
                if image.shape != other.shape:
                    raise MediaError(
                        f"{new.topic} of the frame with the stamp {key[0]} ns is {_size(image)} "
                        f"in '{new.name}' and {_size(other)} in '{reference.name}'"
                    )
                yield key, image, other


def _frames(source: BagSource, shared: set[Key]) -> Iterator[tuple[Key, Pixels]]:
    count: Counter[int] = Counter()
    for frame in source:
        key = (frame.header_ns, count[frame.header_ns])
        count[frame.header_ns] += 1
        if key in shared:
            yield key, frame.image
    if source.refused:
        first = source.refused[0]
        raise MediaError(f"{source.topic} in '{source.name}', message {first.name}: {first.reason}")


def _size(image: Pixels) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
