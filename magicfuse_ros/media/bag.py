"""An image topic of a rosbag2 as a source of frames, read without ROS."""

from __future__ import annotations

import itertools
import statistics
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import Image, decode, decode_compressed
from magicfuse_ros.media import is_bag
from magicfuse_ros.media.source import Frame, Refusal

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_SUFFIX = "/compressed"
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
    """A message as it was recorded: `cdr` is what a publisher sends."""

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
        msgtype: of its messages, `RAW` or `COMPRESSED`.
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
            MediaError: if it is no bag or cannot be read, holds no image there, or holds several
                image topics and `topic` is not one of them.
        """
        if not path.exists():
            raise MediaError(f"'{path}' does not exist")
        if not is_bag(path):
            raise MediaError(
                f"'{path}' is no rosbag2; expected a folder with metadata.yaml, "
                "an .mcap or a .db3 file"
            )
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
                self.msgtype = self._connections(reader)[0].msgtype
                self._start_ns = reader.start_time + round(start_s * _SECOND) if start_s else None
                begin_ns = self._start_ns or reader.start_time
                self._stop_ns = begin_ns + round(duration_s * _SECOND) if duration_s else None
                whole = self._start_ns is None and self._stop_ns is None
                self._length = counts[self.topic] if whole else self._count(reader)
                if not self._length:
                    raise MediaError(
                        f"rosbag2 '{path}', {reader.duration / _SECOND:.1f} s long, holds no image "
                        f"on {self.topic} from second {start_s:g} on"
                        + (f" for {duration_s:g} s" if duration_s else "")
                    )
                self.frame_rate = self._rate(reader)
        except MediaError:
            raise
        except Exception as error:
            raise MediaError(f"'{path}' cannot be read as a rosbag2: {error}") from error

    @property
    def base_topic(self) -> str:
        """The name that image_transport gives the raw topic: the topic without /compressed."""
        return self.topic.removesuffix(_SUFFIX) if self.msgtype == COMPRESSED else self.topic

    @property
    def camera_info_topic(self) -> str:
        """The sibling of the image topic that cameras publish their calibration on."""
        return f"{self.base_topic.rpartition('/')[0]}/camera_info"

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

    def _count(self, reader: AnyReader) -> int:
        return sum(1 for _ in self._messages(reader, self._connections(reader)))

    def _rate(self, reader: AnyReader) -> float | None:
        with closing(self._messages(reader, self._connections(reader))) as messages:
            times = [time for _, time, _ in itertools.islice(messages, _RATE_SAMPLE)]
        distances = [b - a for a, b in itertools.pairwise(times)]
        period_ns = statistics.median(distances) if distances else 0
        return 1e9 / period_ns if period_ns > 0 else None

    def _connections(self, reader: AnyReader) -> list[Connection]:
        return [c for c in _image_connections(reader) if c.topic == self.topic]

    def _camera_info_connections(self, reader: AnyReader) -> list[Connection]:
        topic = self.camera_info_topic
        return [c for c in reader.connections if (c.topic, c.msgtype) == (topic, CAMERA_INFO)]

    def _messages(self, reader: AnyReader, connections: list[Connection]) -> Any:
        return reader.messages(connections, self._start_ns, self._stop_ns)

    def __len__(self) -> int:
        """Return the number of messages on the topic."""
        return self._length

    def __iter__(self) -> Iterator[RecordedFrame]:
        """Read the topic from the start."""
        for name, recorded_ns, message, msgtype in self._deserialized():
            header_ns = _stamp_ns(message)
            try:
                image = _decode(message, msgtype)
            except FrameError as error:
                self.refused.append(Refusal(name, str(error)))
                continue
            yield RecordedFrame(
                image=image,
                name=name,
                stamp_ns=header_ns or recorded_ns,
                header_ns=header_ns,
                frame_id=str(message.header.frame_id),
                recorded_ns=recorded_ns,
            )

    def _deserialized(self) -> Iterator[tuple[str, int, Any, str]]:
        self.refused.clear()
        with self._open() as reader:
            readable = self._readable(self._messages(reader, self._connections(reader)))
            for index, (connection, recorded_ns, raw) in enumerate(readable):
                name = f"{index:06d}"
                try:
                    message = _deserialize(reader, connection, raw)
                except FrameError as error:
                    self.refused.append(Refusal(name, str(error)))
                else:
                    yield name, recorded_ns, message, connection.msgtype

    def _readable(self, messages: Any) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield messages up to the point where the bag is damaged, which is a refusal."""
        for index in itertools.count():
            try:
                message = next(messages)
            except StopIteration:
                return
            except Exception as error:  # as in __init__; nothing after this can be read
                reason = f"the bag is damaged from here on: {error}"
                self.refused.append(Refusal(f"{index:06d}", reason))
                return
            yield message

    def raw_messages(self) -> Iterator[RawMessage]:
        """Yield the messages of the image topic and of its camera_info, as they were recorded."""
        self.refused.clear()
        with self._open() as reader:
            connections = self._connections(reader) + self._camera_info_connections(reader)
            for connection, recorded_ns, raw in self._readable(self._messages(reader, connections)):
                yield RawMessage(connection.topic, recorded_ns, bytes(raw))

    def calibrations(self) -> list[tuple[int, Any]]:
        """Return the camera_info messages that differ from the one before, the header aside.

        Each comes with its recording time. Those before the start of reading are in it, as the
        last of them is valid there.

        Raises:
            MediaError: if one of them cannot be read.
        """
        found: list[tuple[int, Any]] = []
        content = None
        try:
            with self._open() as reader:
                connections = self._camera_info_connections(reader)
                # reader.messages takes an empty list for all topics
                messages = reader.messages(connections) if connections else ()
                for connection, recorded_ns, raw in messages:
                    message: Any = reader.deserialize(raw, connection.msgtype)
                    fields = {name: repr(v) for name, v in vars(message).items()}
                    del fields["header"]
                    if fields != content:
                        found.append((recorded_ns, message))
                        content = fields
        except Exception as error:
            raise MediaError(
                f"{self.camera_info_topic} of rosbag2 '{self.name}' cannot be read: {error}"
            ) from error
        return found


def header_stamp_ns(cdr: bytes) -> int:
    """Return the stamp of a message that begins with a header, without reading the rest.

    Raises:
        FrameError: if the message is too short.
    """
    if len(cdr) < 12:
        raise FrameError(f"the message is damaged: {len(cdr)} bytes, too short for a header")
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return int(seconds) * _SECOND + int(nanoseconds)


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
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)
