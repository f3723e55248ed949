# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""An image topic of a rosbag2 as a source of frames, read without ROS."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import BitDepth, decode_message
from magicfuse_ros.media.bag_reader import (
    CAMERA_INFO,
    COMPRESSED,
    RAW,
    Bag,
    RawMessage,
    header_stamp_ns,
    image_channels,
    image_topics,
    open_bag,
)
from magicfuse_ros.media.mcap_file import Channel
from magicfuse_ros.media.source import Frame, Refusal

_RATE_SAMPLE = 30
_RATE_SPAN = 8  # images
_SHOWN_TOPICS = 8
_SECOND = 1_000_000_000
_FOREVER_NS = 1 << 62


@dataclass(frozen=True)
class RecordedFrame(Frame):
    """A camera image of a bag.

    Attributes:
        header: its std_msgs/Header.
        recorded_ns: when the recorder received the message.
    """

    header: Any
    recorded_ns: int


class Calibration(NamedTuple):
    """A camera_info of a bag.

    Attributes:
        recorded_ns: when the recorder received the message.
        stamp_ns: stamp of its header.
        frame: frame_id of its header.
        info: the message, or an equal one with another header.
    """

    recorded_ns: int
    stamp_ns: int
    frame: str
    info: Any


class BagSource:
    """The images of one topic, in the order of their recording.

    Stamps come from the headers, or are the recording times if a header has no stamp. Frames are
    named by their number, `000000`, `000001`, ... A message that cannot be decoded becomes a
    refusal, and reading continues. A place where the bag is cut or damaged also becomes one
    refusal, if an image is lost there; further images lost there count as missing.

    Attributes:
        topic: the topic that is read.
        msgtype: message type: `sensor_msgs/msg/Image` or `sensor_msgs/msg/CompressedImage`.
        frame_rate: from the median interval of the first recording times.
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
            topic: image topic; required if the bag has several.
            start_s: seconds to skip, counted from the bag's first message.
            duration_s: seconds to read; None reads to the end.

        Raises:
            MediaError: if the bag cannot be read, holds no image there, or holds several image
                topics and `topic` is not one of them.
        """
        self.name = str(path)
        self.refused: list[Refusal] = []
        self.missing = 0
        self.damage: list[str] = []
        self._path = path
        for name, seconds in (("start", start_s), ("duration", duration_s)):
            if seconds is not None and not 0 <= seconds < math.inf:
                raise MediaError(f"{name} is {seconds} s; expected 0 or more")
        with open_bag(path) as bag:
            self.topic = self._choose(bag, topic)
            self._channels = [
                c for c in image_channels(bag) if c.topic == self.topic and bag.announced[c]
            ]
            self.msgtype = self._channels[0].msgtype
            first_ns, last_ns = bag.start_ns or 0, bag.end_ns or 0
            begin_ns = first_ns + _nanoseconds(start_s)
            end_ns = None if duration_s is None else begin_ns + _nanoseconds(duration_s)
            self._window = (begin_ns if start_s else None, end_ns)
            if self._window == (None, None):
                self._length = sum(bag.announced[channel] for channel in self._channels)
            else:
                self._length = bag.count(self._channels, *self._window)
            if not self._length:
                raise MediaError(
                    f"rosbag2 '{path}' is {(last_ns - first_ns) / _SECOND:.1f} s long; it holds no "
                    f"image on {_listed([self.topic])} from second {start_s:g} on"
                    + ("" if duration_s is None else f" for {duration_s:g} s")
                )
            self.frame_rate = self._rate(bag)

    @property
    def base_topic(self) -> str:
        """The name of the raw topic in image_transport's terms: `topic` without /compressed."""
        return self.topic.removesuffix("/compressed") if self.msgtype == COMPRESSED else self.topic

    @property
    def camera_info_topic(self) -> str:
        """The topic beside the image topic on which cameras publish their calibration."""
        camera, slash, _ = self.base_topic.rpartition("/")  # in ROS 1, "image" has no slash
        return f"{camera}{slash}camera_info"

    @property
    def played_topic(self) -> str:
        """`base_topic` as a valid ROS 2 name; bags from ROS 1 or other tools may have invalid ones.

        Each part of a valid name consists of letters, digits and '_', and does not start with a
        digit.
        """
        parts = [re.sub(r"[^A-Za-z0-9_]", "_", part) for part in self.base_topic.split("/") if part]
        name = "".join(f"/_{part}" if part[0].isdigit() else f"/{part}" for part in parts)
        return name or "/image"  # for a topic called "/compressed"

    def check_one_type(self) -> None:
        """Check that a publisher can play the topic: all of its messages have one type.

        Raises:
            MediaError: if the bag holds raw and compressed images on the topic.
        """
        if len(self._channels) > 1:
            raise MediaError(
                f"topic {self.topic!r} of rosbag2 '{self.name}' holds messages of {RAW} and "
                f"{COMPRESSED}; expected one type, because a topic in ROS 2 has one: `magicfuse "
                "replay --offline` fuses both"
            )

    def _choose(self, bag: Bag, topic: str | None) -> str:
        candidates = list(image_topics(bag))
        if not candidates:
            raise MediaError("; ".join([self._without_images(bag), *bag.damage]))
        listed = _listed(candidates)
        if topic is None and len(candidates) > 1:
            raise MediaError(
                f"rosbag2 '{self.name}' has several image topics; give topic as one of {listed}"
            )
        if topic is not None and topic not in candidates:
            raise MediaError(
                f"topic is {topic!r}; the image topics of rosbag2 '{self.name}' are {listed}"
            )
        return topic or candidates[0]

    def _without_images(self, bag: Bag) -> str:
        message = f"rosbag2 '{self.name}' holds no message of {RAW} or {COMPRESSED}"
        silent = [channel.topic for channel in image_channels(bag)]
        others = [f"{c.topic} ({c.msgtype})" for c in sorted(bag.counts) if bag.counts[c]]
        if silent:
            return f"{message}: nothing was recorded on {_listed(silent)}"
        others += sorted(bag.foreign)
        if not others:
            return f"{message}: it is empty"
        more = ", ..." if len(others) > _SHOWN_TOPICS else ""
        message = f"{message}; it holds {_listed(others[:_SHOWN_TOPICS])}{more}"
        if bag.foreign:
            message += "; ROS 2 serializes as cdr (rosbags-convert makes a rosbag2 of a ROS 1 bag)"
        return message

    def _rate(self, bag: Bag) -> float | None:
        messages = bag.messages(self._channels, *self._window)
        times = [m.recorded_ns for m in itertools.islice(messages, _RATE_SAMPLE)]
        # Over several images, because they may have been recorded in bursts.
        several = min(_RATE_SPAN, len(times) - 1)
        spans = [b - a for a, b in zip(times, times[several:], strict=False)] if several > 0 else []
        period_ns = statistics.median(spans) / several if spans else 0
        return 1e9 / period_ns if period_ns > 0 else None

    @property
    def _camera_info(self) -> Channel:
        return Channel(self.camera_info_topic, CAMERA_INFO)

    def __len__(self) -> int:
        """Return the number of messages on the topic, as the bag announces it."""
        return self._length

    def __iter__(self) -> Iterator[RecordedFrame]:
        """Read the topic from the start."""
        depth = BitDepth()
        self._forget()
        with open_bag(self._path) as bag:
            for index, raw in self._readable(bag, self._channels):
                name = f"{index:06d}"
                try:
                    message = bag.deserialize(raw)
                    image = decode_message(message, depth)
                except FrameError as error:
                    self.refused.append(Refusal(name, str(error)))
                    continue
                yield RecordedFrame(
                    image=image,
                    name=name,
                    stamp_ns=header_stamp_ns(raw.cdr) or raw.recorded_ns,
                    header=message.header,
                    recorded_ns=raw.recorded_ns,
                )

    def _readable(self, bag: Bag, channels: list[Channel]) -> Iterator[tuple[int, RawMessage]]:
        """Yield messages, numbered by the images before them; tell of damage."""
        index = 0
        later = list(dict.fromkeys(bag.damage))  # told last: a killed recorder cuts the end
        told = set(later)
        for message in bag.messages(channels, *self._window):
            for sentence in bag.damage:
                if sentence not in told:
                    self._refuse(sentence, index)
                    told.add(sentence)
            yield index, message
            index += message.channel in self._channels
        lost = self._length - index - (len(told) - len(later))
        latest = [sentence for sentence in bag.damage if sentence not in told]
        if lost > 0 and not bag.damage:  # a -wal was left behind
            latest = [f"'{self.name}' announces {self._length} images and holds {index}"]
        for sentence in [*latest, *later]:
            if lost > 0:
                self._refuse(sentence, index)
                lost -= 1
            else:
                self.damage.append(_damage(sentence))
        self.missing = max(0, lost)

    def _forget(self) -> None:
        self.refused.clear()
        self.damage.clear()
        self.missing = 0

    def _refuse(self, sentence: str, index: int) -> None:
        self.refused.append(Refusal(f"{index:06d}", _damage(sentence)))

    def raw_messages(self) -> Iterator[RawMessage]:
        """Read the serialized messages of the image topic and of its camera_info.

        The camera_info in effect at the start comes first, as if it were recorded then, because
        many cameras send it only once.
        """
        self._forget()
        with open_bag(self._path) as bag:
            if (begin_ns := self._window[0]) is not None:
                before = bag.latest([self._camera_info], begin_ns)
                if before is not None:
                    yield before._replace(recorded_ns=begin_ns)
            for _, message in self._readable(bag, [*self._channels, self._camera_info]):
                yield message

    def calibrations(self, damaged: list[str]) -> list[Calibration]:
        """Return the camera_info messages; they share one `info` until it changes.

        Messages from before the first image are included, because the last of them applies to that
        image. A sentence about each damaged one is added to `damaged`.
        """
        found: list[Calibration] = []
        info = content = None
        with open_bag(self._path) as bag:
            for raw in bag.messages([self._camera_info]):
                try:
                    message = bag.deserialize(raw)
                except FrameError as error:
                    damaged.append(f"{_listed([self.camera_info_topic])}: {error}")
                    continue
                fields = {name: repr(value) for name, value in vars(message).items()}
                del fields["header"]
                if fields != content:
                    info, content = message, fields
                stamp_ns, frame = header_stamp_ns(raw.cdr), message.header.frame_id
                found.append(Calibration(raw.recorded_ns, stamp_ns, frame, info))
        return found


def _nanoseconds(seconds: float) -> int:
    return round(min(seconds * _SECOND, _FOREVER_NS))  # a float times 1e9 may be infinite


def _listed(names: list[str]) -> str:
    """Return names that a terminal can show: those in a bag may hold control characters."""
    return ", ".join(name if name.isprintable() else repr(name) for name in names)


def _damage(sentence: str) -> str:
    return f"the bag is damaged: {sentence}"
