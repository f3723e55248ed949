"""An image topic of a rosbag2 as a source of frames, read without ROS."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import Image, decode, decode_compressed
from magicfuse_ros.media.bag_reader import (
    CAMERA_INFO,
    COMPRESSED,
    RAW,
    header_stamp_ns,
    image_connections,
    image_topics,
    open_bag,
)
from magicfuse_ros.media.source import Frame, Refusal

_RATE_SAMPLE = 30
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class RecordedFrame(Frame):
    """A camera image of a bag.

    Attributes:
        header_ns: stamp of the header, 0 where it has none.
        frame_id: of the header.
        recorded_ns: when the recorder received the message.
    """

    header_ns: int
    frame_id: str
    recorded_ns: int


class RawMessage(NamedTuple):
    """A message as it was recorded; `cdr` is what a publisher can send."""

    topic: str
    recorded_ns: int
    cdr: bytes


class BagSource:
    """The images of one topic, in the order of their recording.

    Stamps are those of the headers, or the recording times where a header has none. Frames are
    named by their number, `000000`, `000001`, ... A message that cannot be decoded is a refusal,
    the others go on.

    Attributes:
        topic: the topic that is read.
        msgtype: of its messages, `sensor_msgs/msg/Image` or `sensor_msgs/msg/CompressedImage`.
        frame_rate: from the median distance of the first recording times.
    """

    def __init__(
        self,
        path: Path,
        topic: str | None = None,
        *,
        start_s: float = 0.0,
        duration_s: float | None = None,
    ) -> None:
        """Open the bag and choose the topic.

        Args:
            path: folder or file.
            topic: image topic; needed where the bag has several.
            start_s: leave out so many seconds from the bag's first message on.
            duration_s: read so many seconds; None reads to the end.

        Raises:
            MediaError: if the bag cannot be read, holds no image there, or holds several image
                topics and `topic` is not one of them.
        """
        self.name = str(path)
        self.refused: list[Refusal] = []
        self._path = path
        with open_bag(path) as reader:
            counts = image_topics(reader)
            self.topic = self._choose(list(counts), topic)
            self.msgtype = self._connections(reader)[0].msgtype
            begin_ns = reader.start_time + round(start_s * _SECOND)
            end_ns = None if duration_s is None else begin_ns + round(duration_s * _SECOND)
            self._window = (begin_ns if start_s else None, end_ns)
            whole = self._window == (None, None)
            self._length = counts[self.topic] if whole else self._count(reader)
            if not self._length:
                raise MediaError(
                    f"rosbag2 '{path}' is {reader.duration / _SECOND:.1f} s long; it holds no "
                    f"image on {self.topic} from second {start_s:g} on"
                    + ("" if duration_s is None else f" for {duration_s:g} s")
                )
            self.frame_rate = self._rate(reader)

    @property
    def base_topic(self) -> str:
        """The name of the raw topic in image_transport's terms: `topic` without /compressed."""
        return self.topic.removesuffix("/compressed") if self.msgtype == COMPRESSED else self.topic

    @property
    def camera_info_topic(self) -> str:
        """The sibling of the image topic, where cameras publish their calibration."""
        return f"{self.base_topic.rpartition('/')[0]}/camera_info"

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

    def _count(self, reader: AnyReader) -> int:
        return sum(1 for _ in reader.messages(self._connections(reader), *self._window))

    def _rate(self, reader: AnyReader) -> float | None:
        with closing(reader.messages(self._connections(reader), *self._window)) as messages:
            times = [time for _, time, _ in itertools.islice(messages, _RATE_SAMPLE)]
        distances = [b - a for a, b in itertools.pairwise(times)]
        period_ns = statistics.median(distances) if distances else 0
        return 1e9 / period_ns if period_ns > 0 else None

    def _connections(self, reader: AnyReader) -> list[Connection]:
        return [c for c in image_connections(reader) if c.topic == self.topic]

    def _camera_info_connections(self, reader: AnyReader) -> list[Connection]:
        wanted = (self.camera_info_topic, CAMERA_INFO)
        return [c for c in reader.connections if (c.topic, c.msgtype) == wanted]

    def __len__(self) -> int:
        """Return the number of messages on the topic."""
        return self._length

    def __iter__(self) -> Iterator[RecordedFrame]:
        """Read the topic from the start."""
        self.refused.clear()
        with open_bag(self._path) as reader:
            for index, (connection, recorded_ns, raw) in self._readable(
                reader, self._connections(reader)
            ):
                name = f"{index:06d}"
                try:
                    message = _deserialize(reader, connection, raw)
                    image = _decode(message, connection.msgtype)
                except FrameError as error:
                    self.refused.append(Refusal(name, str(error)))
                    continue
                header_ns = _stamp_ns(message)
                yield RecordedFrame(
                    image=image,
                    name=name,
                    stamp_ns=header_ns or recorded_ns,
                    header_ns=header_ns,
                    frame_id=str(message.header.frame_id),
                    recorded_ns=recorded_ns,
                )

    def _readable(
        self, reader: AnyReader, connections: list[Connection]
    ) -> Iterator[tuple[int, tuple[Connection, int, bytes]]]:
        """Yield numbered messages up to where the bag is damaged, if it is: that is a refusal."""
        messages = reader.messages(connections, *self._window)
        for index in itertools.count():
            try:
                message = next(messages)
            except StopIteration:
                return
            except Exception as error:  # a parser's, see open_bag; nothing after it can be read
                reason = f"the bag is damaged from here on: {error}"
                self.refused.append(Refusal(f"{index:06d}", reason))
                return
            yield index, message

    def raw_messages(self) -> Iterator[RawMessage]:
        """Read the messages of the image topic and of its camera_info as they were recorded."""
        self.refused.clear()
        with open_bag(self._path) as reader:
            connections = self._connections(reader) + self._camera_info_connections(reader)
            for _, (connection, recorded_ns, raw) in self._readable(reader, connections):
                yield RawMessage(connection.topic, recorded_ns, bytes(raw))

    def header_stamps(self) -> list[int]:
        """Return the stamp of every image in ns, without decoding them.

        Raises:
            MediaError: if the bag or a message is damaged.
        """
        stamps = []
        with open_bag(self._path) as reader:
            for _, _, raw in reader.messages(self._connections(reader), *self._window):
                try:
                    stamps.append(header_stamp_ns(bytes(raw[:12])))
                except FrameError as error:
                    where = f"{self.topic} in '{self.name}', message {len(stamps)}"
                    raise MediaError(f"{where}: {error}") from error
        return stamps

    def calibrations(self) -> list[tuple[int, Any]]:
        """Return the camera_info messages that differ from the one before, the header aside.

        Each comes with its recording time. Those before the first image that is read are in it,
        as the last of them is valid there.

        Raises:
            MediaError: if one of them cannot be read.
        """
        found: list[tuple[int, Any]] = []
        content = None
        with open_bag(self._path) as reader:
            connections = self._camera_info_connections(reader)
            # reader.messages takes an empty list for all topics
            for connection, recorded_ns, raw in reader.messages(connections) if connections else ():
                message: Any = reader.deserialize(raw, connection.msgtype)
                fields = {name: repr(value) for name, value in vars(message).items()}
                del fields["header"]
                if fields != content:
                    found.append((recorded_ns, message))
                    content = fields
        return found


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
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)
