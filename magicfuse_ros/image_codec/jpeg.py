# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Decodes JPEGs and checks that they are complete. OpenCV up to 4.10 makes up missing parts.

libjpeg reports them in a warning that neither OpenCV nor Pillow passes on. So the coded data is
first decoded at an eighth of the size, which takes about a third of the time of the full decoding:
there must be enough data for all rows, and hardly more. For JPEGs that Pillow's decoder cannot
judge (progressive ones and those with restart markers), FFmpeg's stricter decoder makes the check.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import av
import cv2
import numpy as np
import PIL.Image
from av.error import FFmpegError, InvalidDataError

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec.pixels import Pixels, decoded_by_opencv, rgb_of_bgr

MAGIC = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SEQUENTIAL = {0xC0, 0xC1}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_TABLES, _SCAN, _RESTART_INTERVAL = 0xC4, 0xDA, 0xDD
_BRIGHTNESS = 0x10  # table of AC coefficients of the first channel
_HOLE = bytes(64)
_LEAST_WIDTH = 64
_SLACK = 32  # extra bytes that a camera may put between the coded data and the end marker
_LOOKAHEAD = b"\xff\0" * 8
_MOST_SCANS = 100  # a progressive one has about 10; each costs time for the whole picture
_MARKER = re.compile(rb"\xff([^\0\xd0-\xd7\xff])")  # without restarts
_PADDING = bytes(64)  # FFmpeg reads ahead


@dataclass(frozen=True)
class Header:
    """The content of the header, up to the first scan.

    Attributes:
        height: in pixels.
        width: in pixels.
        channels: 1 gray, 3 colour, 4 CMYK.
        scan: offset of the coded data of the first scan.
        restarts: number of restart markers in that scan; None if it is not the only scan.
        zeros: a long run of zero bytes may be part of the picture.
    """

    height: int
    width: int
    channels: int
    scan: int
    restarts: int | None
    zeros: bool


def read_header(data: bytes) -> Header:
    """Read the segments up to the first scan.

    Raises:
        FrameError: if they are damaged or cut.
    """
    frame, kind, interval, zeros, at = b"", 0, 0, False, 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:  # skip any number of fill bytes
            at += 1
        if not 0 <= at < len(data) - 2 or data[at] == _END[1]:
            raise _damaged(data, "its header is cut")
        marker, at = data[at], at + 1
        if marker in _ALONE or marker == 0:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        segment = data[at + 2 : at + length]
        if length < 2 or at + length > len(data):
            raise _damaged(data, "its header is cut")
        at += length
        if marker in _FRAMES:
            kind, frame = marker, segment
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(segment[:2], "big")
        elif marker == _TABLES:
            zeros |= _zeros_are_even(segment)
        elif marker == _SCAN:
            break
    channels = frame[5] if len(frame) > 5 else 0
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if not (height and width and 1 <= channels <= 4 and len(frame) >= 6 + 3 * channels):
        raise _damaged(data, "its header gives no size")
    restarts = None
    if kind in _SEQUENTIAL and segment[:1] == frame[5:6]:  # one scan holds all channels
        restarts = _restarts(frame, height, width, channels, interval)
    return Header(height, width, channels, at, restarts, zeros)


def _restarts(frame: bytes, height: int, width: int, channels: int, interval: int) -> int | None:
    factors = frame[7 : 6 + 3 * channels : 3]
    across, down = max(f >> 4 for f in factors), max(f & 15 for f in factors)
    if channels == 1:
        across = down = 1  # a single channel is coded block by block
    if not (interval and across and down):
        return 0 if across and down else None
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return -(-units // interval) - 1


def _zeros_are_even(tables: bytes) -> bool:
    """Return whether zero bits, the code of a table's first symbol, stand for a flat block.

    In the usual tables they stand for a texture that no picture has.
    """
    at = 0
    while at + 17 < len(tables):
        if tables[at] == _BRIGHTNESS:
            return tables[at + 17] == 0
        at += 17 + sum(tables[at + 1 : at + 17])
    return False


def decode(data: bytes) -> tuple[Pixels, int]:
    """Decode a JPEG with all of its pixels; end marker and Huffman tables may be missing.

    Bytes that the decoders skip, before a marker or after the end, do not count as damage.

    Returns:
        A new RGB image, HxWx3 uint8, as stored: an Exif orientation is not applied; and the number
        of channels of the file.

    Raises:
        FrameError: if it is cut or damaged, or has too many scans.
    """
    header = read_header(data)
    if _has_more_scans(data, header.scan, _MOST_SCANS):
        raise FrameError(
            f"{len(data)} bytes of JPEG hold more than {_MOST_SCANS} scans; a picture has about 10"
        )
    end, shown = data.find(_END, header.scan), data
    if end < 0:  # some cameras omit the marker, and some of them append zeros
        coded = data.rstrip(b"\0")
        end = min(len(data), len(coded) + 2)  # up to two zeros may be coded data
        data = data[:end] + _END
        # libjpeg adds missing zeros itself; about others it prints a warning for every image.
        shown = (coded + b"\0" if coded.endswith(b"\xff") else coded) + _END
    restarts = _restart_markers(data, header.scan, end)
    if header.restarts is not None and restarts < header.restarts:
        raise _damaged(data, f"{header.restarts - restarts} restart markers are missing")
    # Later scans refine flat parts of the picture with long runs of zero bits.
    tells = header.restarts is not None and not header.zeros
    if tells and data.find(_HOLE, header.scan, end) >= 0:
        raise _damaged(data, "there is a hole in the picture")
    fits = _fits(data, end) if header.restarts == 0 and header.width >= _LEAST_WIDTH else None
    if not (_decodes(data) if fits is None else fits):
        raise _damaged(data, "a part of the picture is missing")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return rgb_of_bgr(np.asarray(decoded_by_opencv(shown, flags), np.uint8)), header.channels


def _has_more_scans(data: bytes, first: int, limit: int) -> bool:
    """Return whether there are more scans than `limit`; the data of the first begins at `first`."""
    scans, at = 1, first
    while scans <= limit and (found := _MARKER.search(data, at)):
        marker, at = found[1][0], found.end()
        if marker == _END[1]:
            break
        scans += marker == _SCAN
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans > limit


def _restart_markers(data: bytes, begin: int, end: int) -> int:
    scan = np.frombuffer(data, np.uint8)[begin:end]
    after = scan[1:][scan[:-1] == 0xFF]
    return int(np.count_nonzero((after >= 0xD0) & (after <= 0xD7)))


def _fits(data: bytes, end: int) -> bool | None:
    """Return whether the coded data, which ends at `end`, is just enough for all rows.

    Pillow's decoder accepts a file in pieces and writes each row as soon as it is complete. None:
    Pillow cannot tell, because it does not support this kind of JPEG.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("JPEG",)) as file:
            file.draft("L", (1, 1))  # an eighth of the size
            [(codec, _, offset, arguments)] = file.tile
            mode, (width, height), config = file.mode, file.size, file.decoderconfig
    except (OSError, SyntaxError, ValueError):
        return None
    image = PIL.Image.new(mode, (width, height))
    mark = PIL.Image.fromarray(np.arange(width, dtype=np.uint8)[None] * 97).convert(mode)
    image.paste(mark, (0, height - 1))
    decoder = PIL.Image._getdecoder(mode, codec, arguments, config)
    decoder.setimage(image.im, (0, 0, width, height))

    def has_last_row() -> bool:
        return bool((np.asarray(image)[-1] != np.asarray(mark)[0]).any())

    last = len(data[:end].rstrip(b"\xff")) - _SLACK
    used, _ = decoder.decode(data[offset:last])
    if has_last_row():
        return False  # all rows are there before the end of the data
    if used < 0:
        return None
    decoder.decode(data[offset + used : end] + _LOOKAHEAD)
    return has_last_row()


def _decodes(data: bytes) -> bool:
    """Return whether FFmpeg decodes the coded data; an extra code or coefficient stops it."""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_type = "NONE"
    decoder.options = {"err_detect": "explode", "lowres": "3"}
    try:
        frames = decoder.decode(av.Packet(data + _PADDING))
    except InvalidDataError:
        return False
    except FFmpegError:  # a kind of JPEG that FFmpeg does not support: leave it to OpenCV
        return True
    return bool(frames)


def _damaged(data: bytes, why: str) -> FrameError:
    return FrameError(f"{len(data)} bytes of JPEG are damaged or cut: {why}")
