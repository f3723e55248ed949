"""An image topic of a rosbag2 as a source of frames, read without ROS."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import Image, decode, decode_compressed
from magicfuse_ros.media.source import Frame, Refusal

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
_RATE_SAMPLE = 30


class BagSource:
    """The images of one topic, in the order of their recording.

    Stamps are those of the headers, or the recording times where a header has none. Frames are
    named by their number, `000000`, `000001`, ... A message that cannot be decoded is a refusal,
    the others go on.

    Attributes:
        topic: the topic that is read.
        frame_rate: from the median distance of the first recording times.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        """Open the bag and choose the topic.

        Raises:
            MediaError: if the bag cannot be read, holds no image, or holds several image topics
                and `topic` is not one of them.
        """
        self.name = str(path)
        self.refused: list[Refusal] = []
        self._path = path
        # rosbags raises what its parsers raise: sqlite, struct, zstd, YAML and own errors.
        try:
            with self._open() as reader:
                counts: dict[str, int] = {}
                for connection in _image_connections(reader):
                    counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
                candidates = sorted(name for name, count in counts.items() if count)
                self.topic = self._choose(candidates, topic)
                self._length = counts[self.topic]
                self.frame_rate = self._rate(reader)
        except MediaError:
            raise
        except Exception as error:
            raise MediaError(f"'{path}' cannot be read as a rosbag2: {error}") from error

    def _open(self) -> AnyReader:
        # Bags of Humble and older do not carry the message definitions.
        return AnyReader([self._path], default_typestore=get_typestore(Stores.ROS2_JAZZY))

    def _choose(self, candidates: list[str], topic: str | None) -> str:
        if not candidates:
            raise MediaError(f"rosbag2 '{self.name}' holds no message of {RAW} or {COMPRESSED}")
        listed = ", ".join(candidates)
        if topic is None and len(candidates) > 1:
            raise MediaError(
                f"rosbag2 '{self.name}' has several image topics; give topic as one of {listed}"
            )
        if topic is not None and topic not in candidates:
            raise MediaError(
                f"topic is {topic!r}; the image topics of rosbag2 '{self.name}' are {listed}"
            )
        return topic or candidates[0]

    def _rate(self, reader: AnyReader) -> float | None:
        with closing(reader.messages(self._connections(reader))) as messages:
            times = [time for _, time, _ in itertools.islice(messages, _RATE_SAMPLE)]
        distances = [b - a for a, b in itertools.pairwise(times)]
        period_ns = statistics.median(distances) if distances else 0
        return 1e9 / period_ns if period_ns > 0 else None

    def _connections(self, reader: AnyReader) -> list[Connection]:
        return [c for c in _image_connections(reader) if c.topic == self.topic]

    def __len__(self) -> int:
        """Return the number of messages on the topic."""
        return self._length

    def __iter__(self) -> Iterator[Frame]:
        """Read the topic from the start of the bag."""
        self.refused.clear()
        with self._open() as reader:
            messages = reader.messages(self._connections(reader))
            for index in itertools.count():
                name = f"{index:06d}"
                try:
                    connection, recorded_ns, raw = next(messages)
                except StopIteration:
                    return
                except Exception as error:  # as in __init__; nothing after this can be read
                    self.refused.append(Refusal(name, f"the bag is damaged from here on: {error}"))
                    return
                try:
                    message = _deserialize(reader, connection, raw)
                    image = _decode(message, connection.msgtype)
                except FrameError as error:
                    self.refused.append(Refusal(name, str(error)))
                else:
                    yield Frame(image, name, _stamp_ns(message) or recorded_ns)


def _image_connections(reader: AnyReader) -> list[Connection]:
    return [c for c in reader.connections if c.msgtype in (RAW, COMPRESSED)]


def _deserialize(reader: AnyReader, connection: Connection, raw: bytes) -> Any:
    try:
        return reader.deserialize(raw, connection.msgtype)
    except Exception as error:  # a short message fails in struct, numpy or rosbags itself
        raise FrameError(f"the message is damaged: {error}") from error


def _decode(message: Any, msgtype: str) -> Image:
    if msgtype == COMPRESSED:
        return decode_compressed(message.format, message.data)
    return decode(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.is_bigendian,
        message.data,
    )


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
