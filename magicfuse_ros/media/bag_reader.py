"""Opening a rosbag2, and what can be told of its messages without decoding them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from magicfuse_ros.errors import FrameError, MagicFuseError, MediaError
from magicfuse_ros.media import is_bag

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_HEADER_STAMP = {0: ">iI", 1: "<iI"}  # by the lowest bit of the encapsulation


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """Open a bag for the block.

    Raises:
        MediaError: if it does not exist, is no bag, or cannot be read in the block.
    """
    if not path.exists():
        raise MediaError(f"'{path}' does not exist")
    if not is_bag(path):
        raise MediaError(
            f"'{path}' is no rosbag2; expected a folder with metadata.yaml, an .mcap or a .db3 file"
        )
    # rosbags raises what its parsers raise: sqlite, struct, zstd, YAML and own errors.
    try:
        # Bags of Humble and older do not carry the message definitions.
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            yield reader
    except MagicFuseError:
        raise
    except Exception as error:
        raise MediaError(f"'{path}' cannot be read as a rosbag2: {error}") from error


def image_connections(reader: AnyReader) -> list[Connection]:
    """Return the connections with raw or compressed images."""
    return [c for c in reader.connections if c.msgtype in (RAW, COMPRESSED)]


def image_topics(reader: AnyReader) -> dict[str, int]:
    """Return the image topics that hold a message, with how many, in the order of their names."""
    counts: dict[str, int] = {}
    for connection in image_connections(reader):
        counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    return {topic: counts[topic] for topic in sorted(counts) if counts[topic]}


def header_stamp_ns(cdr: bytes) -> int:
    """Return the stamp of a serialized message that begins with a header.

    Raises:
        FrameError: if the message is too short.
    """
    if len(cdr) < 12:
        raise FrameError(f"the message is damaged: its {len(cdr)} bytes hold no header")
    seconds, nanoseconds = struct.unpack_from(_HEADER_STAMP[cdr[1] & 1], cdr, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
