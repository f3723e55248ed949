# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""MP4 files, written with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Pixels

_BT709 = 1  # the value of FFmpeg's enums for matrix, primaries and transfer
_LIMITED_RANGE = 1
_MPEG4_BIT_RATE = 8_000_000


class VideoWriter:
    """An MP4 in yuv420p: H.264 if PyAV has libx264, else MPEG-4.

    Frames keep the intervals of their stamps, rounded to the grid of the frame rate, so that
    dropped frames leave a gap and do not speed up the video. Without frames no file is written.
    """

    def __init__(self, path: Path, frame_rate: float) -> None:
        """Take the file to write and the frames per second.

        Raises:
            MediaError: if the frame rate is not positive.
        """
        if not frame_rate > 0:
            raise MediaError(f"frame_rate of video '{path}' is {frame_rate}; expected above 0")
        self._path = path
        self._rate = Fraction(frame_rate).limit_denominator(1001)  # MPEG-4 allows 16 bits
        self._container: OutputContainer | None = None
        self._shape: tuple[int, ...] = ()
        self._first_ns = 0
        self._slot = -1

    def write(self, image: Pixels, stamp_ns: int) -> None:
        """Append a frame.

        Args:
            image: RGB, HxWx3 uint8; all must have the size of the first. Odd sizes are padded by
                one column or row.
            stamp_ns: time of the frame. A frame that is not later than the previous one follows it
                after one period; so do pictures, which have no clock.

        Raises:
            MediaError: if the size differs from the first frame's, or the file cannot be written.
        """
        try:
            if self._container is None:
                self._start(image, stamp_ns)
            if image.shape != self._shape:
                raise MediaError(
                    f"a frame of video '{self._path}' is {image.shape}; "
                    f"expected {self._shape} as the first"
                )
            self._encode(image, stamp_ns)
        except (FFmpegError, OSError) as error:
            raise MediaError(f"cannot write '{self._path}': {error.strerror or error}") from error

    def _start(self, image: Pixels, stamp_ns: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._path.absolute()), "w", format="mp4")
        stream: VideoStream
        if "libx264" in av.codecs_available:
            stream = self._container.add_stream("libx264", rate=self._rate)
            stream.options = {"preset": "veryfast", "crf": "20"}
        else:
            stream = self._container.add_stream("mpeg4", rate=self._rate)
            stream.bit_rate = _MPEG4_BIT_RATE
        self._shape = image.shape
        stream.height, stream.width = (side + side % 2 for side in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        self._stream = stream
        self._first_ns = stamp_ns

    def _encode(self, image: Pixels, stamp_ns: int) -> None:
        assert self._container is not None
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            image = np.asarray(padded, dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709
        )
        grid = round((stamp_ns - self._first_ns) * self._rate / 1_000_000_000)
        self._slot = max(self._slot + 1, grid)
        frame.pts = self._slot
        frame.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file.

        Raises:
            MediaError: if the file cannot be written.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            with container:
                container.mux(self._stream.encode(None))
        except (FFmpegError, OSError) as error:
            raise MediaError(f"cannot write '{self._path}': {error.strerror or error}") from error

    def __enter__(self) -> VideoWriter:
        """Return the writer; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, also after an error: the part written so far stays playable."""
        self.close()
