# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes bags for the replay tests, and reads bags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin

from image_messages import compress
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.bag_writer import BagWriter
from media_files import (
    SECOND,
    TYPES,
    Message,
    compressed_message,
    header,
    image_message,
    picture,
    write_bag,
)

START = 1_700_000_000 * SECOND
PERIOD = SECOND // 10
LATENCY = 5_000_000  # from a stamp to its recording time
CAMERA = "/camera/image_raw"
# What a node with the tiny bundle publishes, and in which encodings.
OUTPUTS = {
    "mag_image": "bgr8",
    "restored_image": "bgr8",
    "thermal_estimate": "mono8",
    "segmentation/mask": "mono8",
    "segmentation/confidence": "mono8",
    "segmentation/overlay": "bgr8",
}


def stamps(count: int) -> list[int]:
    """Return the header stamps of a camera at 10 Hz."""
    return [START + i * PERIOD for i in range(count)]


def frame(number: int) -> Pixels:
    """A camera image at the size of the tiny bundle, changing every third frame."""
    return picture(64, 96, seed=number // 3)


def drive(
    path: Path,
    count: int,
    *,
    suffix: str = "",
    storage: StoragePlugin = StoragePlugin.MCAP,
    info: bool = False,
    broken: Sequence[int] = (),
) -> Path:
    """Write a bag of a camera; with a `suffix` such as .png, the images are compressed.

    The frames in `broken` have an unknown encoding or format.
    """
    messages: list[Message] = []
    for i, stamp in enumerate(stamps(count)):
        recorded = stamp + LATENCY
        if info and i in (0, count // 2):
            messages.append(("/camera/camera_info", recorded - 1, camera_info(stamp, focal=i)))
        bad = "odd_code" if i in broken else ""
        if suffix:
            data = compress(suffix, frame(i))
            image = compressed_message(data, stamp, bad or suffix.lstrip("."))
            messages.append((f"{CAMERA}/compressed", recorded, image))
        else:
            messages.append((CAMERA, recorded, image_message(frame(i), stamp, bad)))
    return write_bag(path, messages, storage)


def two_types(path: Path) -> Path:
    """Write a bag with a raw and a compressed image on one topic."""
    first, second = stamps(2)
    picture = compressed_message(compress(".png", frame(0)), second, "png")
    raw = image_message(frame(0), first)
    return write_bag(path, [(CAMERA, first, raw), (CAMERA, second, picture)])


def camera_info(stamp_ns: int, focal: float) -> Any:
    """A sensor_msgs/CameraInfo with the given focal length."""
    roi = TYPES.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([focal, 0, 48, 0, focal, 32, 0, 0, 1], np.float64)
    p = np.zeros(12)
    kind = TYPES.types["sensor_msgs/msg/CameraInfo"]
    return kind(
        header(stamp_ns), 64, 96, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, roi
    )


def results(path: Path, outputs: Mapping[str, Sequence[tuple[int, Pixels]]]) -> Path:
    """Write outputs of /fuse_node, each a list of header stamp and image, RGB or gray."""
    with BagWriter(path) as writer:
        for name, images in outputs.items():
            writer.add_topic(f"/fuse_node/{name}", "sensor_msgs/msg/Image")
            for number, (stamp, image) in enumerate(images):
                writer.write(f"/fuse_node/{name}", START + number, image_message(image, stamp))
    return path


def content(bag: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Return recording time and bytes of every message, by topic."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    with AnyReader([bag]) as reader:
        for connection, time, raw in reader.messages():
            found.setdefault(connection.topic, []).append((time, bytes(raw)))
    return found


def messages(bag: Path) -> dict[str, list[Any]]:
    """Return the messages by topic."""
    found: dict[str, list[Any]] = {}
    with AnyReader([bag]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append(message)
    return found


def summary(out: Path) -> dict[str, Any]:
    """Return the report of a replay into the folder `out`."""
    report: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return report


def stamp_ns(message: Any) -> int:
    """Return the header stamp."""
    return int(message.header.stamp.sec) * SECOND + int(message.header.stamp.nanosec)
