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

Each bag is read twice, whatever the number of outputs: first the stamps, then the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from math import log10
from pathlib import Path

import numpy as np

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import Pixels, decode_message
from magicfuse_ros.media.bag_reader import (
    Bag,
    RawMessage,
    header_stamp_ns,
    image_channels,
    image_topics,
    open_bag,
)
from magicfuse_ros.media.mcap_file import Channel
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
    topics = {f"{node}/{name}": name for name in both}
    our_keys, their_keys = _common_keys(new, topics), _common_keys(reference, topics)
    shared = set(our_keys) & set(their_keys)
    found.missing = [key[0] for key in their_keys if key not in shared]
    found.extra = [key[0] for key in our_keys if key not in shared]
    differences = {key: Difference(key[0]) for key in their_keys if key in shared}
    for difference in differences.values():  # in the same order, whatever that of the messages
        difference.psnr_db = {name: None for name in both if name != MASK}
    before: dict[str, tuple[Pixels, Pixels]] = {}
    for topic, key, ours, theirs in _pairs(new, reference, topics, shared):
        name, difference = topics[topic], differences[key]
        if name == MASK:
            difference.mask_agreement = round(100.0 - _changed_percent(ours, theirs), 6)
        else:
            difference.psnr_db[name] = psnr_db(ours, theirs)
        if name in FLICKERING:
            if name in before and before[name][0].shape == ours.shape:
                change = _changed_percent if name == MASK else _mean_change
                changes = (change(a, b) for a, b in zip((ours, theirs), before[name], strict=True))
                difference.flicker[name] = Flicker(*(round(value, 4) for value in changes))
            before[name] = ours, theirs
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


def _common_keys(bag: Path, topics: Collection[str]) -> list[Key]:
    """Return the keys of the frames that have all outputs, in the order of the first output.

    Raises:
        MediaError: if the bag or a message is damaged, or the bag lacks images that it announces.
    """
    keys: dict[str, list[Key]] = {topic: [] for topic in topics}
    with open_bag(bag) as reader:
        announced = sum(reader.announced[channel] for channel in _channels(reader, topics))
        for key, message in _outputs(bag, reader, topics):
            keys[message.channel.topic].append(key)
        held = sum(map(len, keys.values()))
        if reader.damage:
            raise MediaError("; ".join(reader.damage))
        if held < announced:  # a -wal was left behind
            raise MediaError(f"'{bag}' announces {announced} images and holds {held}")
    first, *others = keys.values()
    everywhere = set(first).intersection(*others)
    return [key for key in first if key in everywhere]


def _channels(reader: Bag, topics: Collection[str]) -> list[Channel]:
    return [channel for channel in image_channels(reader) if channel.topic in topics]


def _outputs(bag: Path, reader: Bag, topics: Collection[str]) -> Iterator[tuple[Key, RawMessage]]:
    """Yield the messages of all outputs with their keys."""
    count: Counter[tuple[str, int]] = Counter()
    for message in reader.messages(_channels(reader, topics)):
        topic = message.channel.topic
        try:
            stamp_ns = header_stamp_ns(message.cdr)
        except FrameError as error:
            raise MediaError(f"{topic} in '{bag}': {error}") from error
        yield (stamp_ns, count[topic, stamp_ns]), message
        count[topic, stamp_ns] += 1


def _pairs(
    new: Path, reference: Path, topics: Collection[str], shared: set[Key]
) -> Iterator[tuple[str, Key, Pixels, Pixels]]:
    """Yield topic, key and images of the matching frames of both bags."""
    bags = new, reference
    # Images wait here for their match; few do, because both bags are in the camera's order.
    waiting: tuple[dict[tuple[str, Key], Pixels], ...] = ({}, {})
    sides = (_images(bag, topics, shared) for bag in bags)
    for pair in zip(*sides, strict=True):
        for side, (topic, key, image) in zip(waiting, pair, strict=True):
            side[topic, key] = image
        for topic, key in dict.fromkeys((topic, key) for topic, key, _ in pair):
            if all((topic, key) in side for side in waiting):
                ours, theirs = (side.pop((topic, key)) for side in waiting)
                if ours.shape != theirs.shape:
                    raise MediaError(
                        f"{topic} of the frame with the stamp {key[0]} ns is {_size(ours)} "
                        f"in '{new}' and {_size(theirs)} in '{reference}'"
                    )
                yield topic, key, ours, theirs


def _images(
    bag: Path, topics: Collection[str], shared: set[Key]
) -> Iterator[tuple[str, Key, Pixels]]:
    """Yield topic, key and image of every output of the shared frames."""
    with open_bag(bag) as reader:
        for key, message in _outputs(bag, reader, topics):
            if key in shared:
                topic = message.channel.topic
                try:
                    yield topic, key, decode_message(reader.deserialize(message))
                except FrameError as error:
                    where = f"{topic} in '{bag}', the frame with the stamp {key[0]} ns"
                    raise MediaError(f"{where}: {error}") from error


def _size(image: Pixels) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
