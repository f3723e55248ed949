# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A video file as a source of frames, read with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import MAX_PIXELS, BitDepth
from magicfuse_ros.media.hdr import Transfer
from magicfuse_ros.media.source import Frame, Refusal
from magicfuse_ros.media.video_file import lacks_index, stated_size
from magicfuse_ros.media.video_frame import to_rgb

_WITHOUT_PRESENTATION_TIMES = ("avi",)


class VideoSource:
    """The main video stream of a file.

    Images are ready to view: upright, with square pixels, HDR tone-mapped. Stamps are the
    presentation times since the start of the stream; they always rise. Frames are named by their
    number, `000000`, `000001`, ... A packet that cannot be decoded becomes a refusal, and so does a
    frame that the decoder marks as damaged; reading continues. A cut file is read up to the cut.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and look for a video stream.

        Raises:
            MediaError: if the file is not a video or holds no frame.
        """
        self.name = str(path)
        self.refused: list[Refusal] = []
        self.missing = 0
        self.damage: list[str] = []
        self._path = path
        self._size = path.stat().st_size
        self._stated_size = stated_size(path) or 0
        container, stream = self._open()
        with container:
            rate = stream.average_rate or stream.guessed_rate
            self.frame_rate: float | None = float(rate) if rate else None
            # Not every format stores the number of frames; counting packets is quick.
            self._length = stream.frames or self._count(container, stream)
            self._about = "" if stream.frames else "about "
        if not self._length:
            raise MediaError(f"video '{self.name}' holds no frame")

    def _open(self) -> tuple[InputContainer, VideoStream]:
        try:
            # FFmpeg takes the part before the first colon of a relative path for a protocol.
            container = av.open(str(self._path.absolute()), metadata_errors="replace")
        except (FFmpegError, OSError) as error:
            reason = error.strerror or str(error)
            if lacks_index(self._path):
                reason = (
                    "it has no index (moov), which a camera writes at its end: its recording was "
                    "not finished, or the file is cut; a tool such as untrunc may repair it"
                )
            elif self._is_cut:
                reason += f"; {self._cut}"
            raise MediaError(f"'{self.name}' cannot be read as a video: {reason}") from error
        found = container.streams.best("video")
        if found is None:
            container.close()
            raise MediaError(f"'{self.name}' has no video stream")
        stream = cast(VideoStream, found)
        if cast(object, stream.codec_context) is None:
            container.close()
            raise MediaError(f"'{self.name}' cannot be read as a video: its codec is unknown")
        stream.thread_type = "SLICE"  # frame threads lose the last frames of a cut file
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            container.close()
            raise MediaError(
                f"video '{self.name}' is {width}x{height}; at most {MAX_PIXELS} pixels are decoded"
            )
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a later size, too
        return container, stream

    @property
    def _is_cut(self) -> bool:
        return self._size < self._stated_size

    @property
    def _cut(self) -> str:
        return f"the file is cut: it has {self._size} of {self._stated_size} bytes"

    def _count(self, container: InputContainer, stream: VideoStream) -> int:
        packets = _Packets(container, stream)
        for _ in packets:
            pass
        # For a cut file this is an estimate from its size in bytes.
        share = self._stated_size / self._size if self._is_cut else 1.0
        return max(round(packets.whole * share), packets.whole + self._is_cut)

    def __len__(self) -> int:
        """Return how many frames the file announces."""
        return self._length

    def __iter__(self) -> Iterator[Frame]:
        """Decode from the start."""
        self.refused.clear()
        self.missing = 0
        container, stream = self._open()
        with container:
            clock = _Clock(container, stream, self.frame_rate)
            packets = _Packets(container, stream)
            shape, depth = stream.sample_aspect_ratio, BitDepth()
            index = 0
            for piece in _decode(packets, stream):
                name = f"{index:06d}"
                index += 1
                if isinstance(piece, FFmpegError):
                    reason = f"cannot be decoded: {piece.strerror or piece}"
                    self.refused.append(Refusal(name, reason))
                    continue
                stamp_ns = clock.stamp_ns(piece)
                if piece.is_corrupt:
                    reason = "is damaged: the decoder had to make up a part of it"
                    self.refused.append(Refusal(name, reason))
                    continue
                try:
                    image = to_rgb(piece, shape, _transfer(stream), depth)
                except FrameError as error:
                    self.refused.append(Refusal(name, str(error)))
                else:
                    yield Frame(image, name, stamp_ns)
            self._tell_cut(index, self._length - packets.whole)

    def _tell_cut(self, index: int, lost: int) -> None:
        # A complete file may announce more frames than it shows: an edit list skips some.
        if self._is_cut and lost > 0:
            reason = f"{self._cut}; it announces {self._about}{self._length} frames"
            self.refused.append(Refusal(f"{index:06d}", reason))
            self.missing = lost - 1


class _Packets:
    """The packets of a stream, without the last one if it is cut.

    Attributes:
        whole: number of complete packets so far.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.whole = 0
        self._packets = container.demux(stream)

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        waiting: Packet[VideoStream] | None = None
        for packet in self._packets:
            flush = not packet.size and packet.pts is None and packet.dts is None
            if waiting is not None and not (flush and waiting.is_corrupt):
                self.whole += 1
                yield waiting
            waiting = None if flush else packet
            if flush:
                yield packet


def _decode(packets: _Packets, stream: VideoStream) -> Iterator[VideoFrame | FFmpegError]:
    found = iter(packets)
    while True:
        try:
            frames = stream.decode(next(found))
        except StopIteration:
            return
        except FFmpegError as error:
            yield error
        else:
            yield from frames


class _Clock:
    """Turns presentation times into nanoseconds since the start of the stream; they rise."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, frame_rate: float | None
    ) -> None:
        # AVI has none: a frame is shown at the time of the packet that made the decoder output it.
        self._by_decoding = container.format.name in _WITHOUT_PRESENTATION_TIMES
        self._start = None if self._by_decoding else stream.start_time or 0
        self._time_base = stream.time_base or Fraction(1, 1000)
        self._period_ns = round(1e9 / frame_rate) if frame_rate else 1
        self._next_ns = 0

    def stamp_ns(self, frame: VideoFrame) -> int:
        stamp = self._next_ns
        time = frame.dts if self._by_decoding else frame.pts
        if time is not None:  # raw streams have no times: the frame rate gives them
            if self._start is None:
                self._start = time
            stamp = round((time - self._start) * self._time_base * 1_000_000_000)
        # The times of joined recordings start again, and some files repeat a time.
        if stamp <= self._next_ns - self._period_ns:
            stamp = self._next_ns
        self._next_ns = stamp + self._period_ns
        return stamp


def _transfer(stream: VideoStream) -> Transfer | None:
    found = stream.codec_context.color_trc
    return Transfer(found) if found in tuple(Transfer) else None
