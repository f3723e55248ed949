"""A video file as a source of frames, read with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Image
from magicfuse_ros.media.source import Frame, Refusal


class VideoSource:
    """The main video stream of a file.

    Stamps are the presentation times since the start of the stream. Frames are named by their
    number, `000000`, `000001`, ... A piece that cannot be decoded is a refusal, the others go on.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and look for a video stream.

        Raises:
            MediaError: if the file is not a video or holds no frame.
        """
        self.name = str(path)
        self.refused: list[Refusal] = []
        container, stream = self._open()
        with container:
            rate = stream.average_rate or stream.guessed_rate
            self.frame_rate: float | None = float(rate) if rate else None
            # Not every format tells the number of frames; packets are quick to count.
            self._length = stream.frames or sum(
                packet.size > 0 for packet in container.demux(stream)
            )
        if not self._length:
            raise MediaError(f"video '{self.name}' holds no frame")

    def _open(self) -> tuple[InputContainer, VideoStream]:
        try:
            container = av.open(self.name)
        except (FFmpegError, OSError) as error:
            reason = error.strerror or error
            raise MediaError(f"'{self.name}' cannot be read as a video: {reason}") from error
        found = container.streams.best("video")
        if found is None:
            container.close()
            raise MediaError(f"'{self.name}' has no video stream")
        stream = cast(VideoStream, found)
        stream.thread_type = "AUTO"
        return container, stream

    def __len__(self) -> int:
        """Return how many frames the file announces."""
        return self._length

    def __iter__(self) -> Iterator[Frame]:
        """Decode from the start."""
        self.refused.clear()
        container, stream = self._open()
        with container:
            clock = _Clock(stream, self.frame_rate)
            for index, piece in enumerate(_decode(container, stream)):
                name = f"{index:06d}"
                if isinstance(piece, FFmpegError):
                    reason = f"cannot be decoded: {piece.strerror or piece}"
                    self.refused.append(Refusal(name, reason))
                else:
                    yield Frame(_to_rgb(piece), name, clock.stamp_ns(piece))


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | FFmpegError]:
    packets = container.demux(stream)
    while True:
        try:
            frames = stream.decode(next(packets))
        except StopIteration:
            return
        except FFmpegError as error:
            yield error
        else:
            yield from frames


class _Clock:
    """Turns presentation times into nanoseconds since the start of the stream."""

    def __init__(self, stream: VideoStream, frame_rate: float | None) -> None:
        self._start = stream.start_time or 0
        self._time_base = stream.time_base or Fraction(1, 1000)
        self._period_ns = round(1e9 / frame_rate) if frame_rate else 0
        self._next_ns = 0

    def stamp_ns(self, frame: VideoFrame) -> int:
        stamp = self._next_ns
        if frame.pts is not None:  # raw streams have no times: count by the frame rate
            stamp = round((frame.pts - self._start) * self._time_base * 1_000_000_000)
        self._next_ns = stamp + self._period_ns
        return stamp


def _to_rgb(frame: VideoFrame) -> Image:
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # phones store the sensor's view and an angle
    return np.ascontiguousarray(np.rot90(rgb, turns), dtype=np.uint8)
