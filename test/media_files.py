# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Makes small pictures, videos and bags for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from image_messages import compress
from magicfuse_ros.image_codec import Pixels, encode_bgr8, encode_mono8

TYPES = get_typestore(Stores.ROS2_JAZZY)
SECOND = 1_000_000_000

Message = tuple[str, int, Any]  # topic, recording time in ns, message


def picture(height: int = 48, width: int = 64, seed: int = 0) -> Pixels:
    """A smooth coloured RGB image: survives JPEG and video coding."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return np.asarray(cv2.resize(corners, (width, height)), np.uint8)


def write_picture(path: Path, image: Pixels) -> Path:
    """Write an RGB image in the format of the suffix."""
    path.write_bytes(compress(path.suffix, image))
    return path


def encode(
    path: Path,
    frames: Iterable[av.VideoFrame],
    codec: str,
    form: str,
    rate: int = 10,
    faststart: bool = False,
    **options: Any,
) -> Path:
    """Write frames of one size as a video.

    Args:
        path: its suffix is that of the container.
        frames: at least one.
        codec: name of the encoder.
        form: pixel format.
        rate: frames a second.
        faststart: whether an MP4 begins with its index.
        options: attributes of the encoder.
    """
    first, *others = frames
    container_options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, form
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        for frame in (first, *others, None):
            container.mux(stream.encode(frame))
    return path


def write_video(path: Path, times: Iterable[int], codec: str = "mpeg4", **options: Any) -> Path:
    """Write frames at `times`, counted in tenths of a second; frame i is `picture(seed=i)`."""
    frames = []
    for i, time in enumerate(times):
        frames.append(av.VideoFrame.from_ndarray(picture(seed=i), format="rgb24"))
        frames[-1].pts = time
    form = {"mpeg4": "yuv420p", "mjpeg": "yuvj420p", "png": "rgb24"}[codec]
    return encode(path, frames, codec, form, bit_rate=4_000_000, **options)


def header(stamp_ns: int) -> Any:
    """A std_msgs/Header."""
    time = TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND))
    return TYPES.types["std_msgs/msg/Header"](time, "camera")


def image_message(image: Pixels, stamp_ns: int, encoding: str = "") -> Any:
    """A sensor_msgs/Image with bgr8 or mono8 data, whatever `encoding` says; usually the truth."""
    color = image.ndim == 3
    height, width, step, data = encode_bgr8(image) if color else encode_mono8(image)
    kind = TYPES.types["sensor_msgs/msg/Image"]
    encoding = encoding or ("bgr8" if color else "mono8")
    return kind(header(stamp_ns), height, width, encoding, 0, step, data)


def compressed_message(data: bytes, stamp_ns: int, format: str = "jpeg") -> Any:
    """A sensor_msgs/CompressedImage."""
    kind = TYPES.types["sensor_msgs/msg/CompressedImage"]
    return kind(header(stamp_ns), format, np.frombuffer(data, np.uint8))


def write_bag(
    path: Path, messages: Iterable[Message], storage: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    """Write a rosbag2 folder."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections: dict[tuple[str, str], Any] = {}
        for topic, time_ns, message in messages:
            kind = message.__msgtype__
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=TYPES)
            raw = TYPES.serialize_cdr(message, kind)
            writer.write(connections[topic, kind], time_ns, raw)
    return path
