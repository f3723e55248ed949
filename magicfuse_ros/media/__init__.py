# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Pictures, videos and bags as iterators of frames, and writers of pictures and videos."""

from __future__ import annotations

import os
from pathlib import Path

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media.foreign import refuse_foreign
from magicfuse_ros.media.pictures import (
    PICTURE_SUFFIXES,
    PictureSource,
    natural_key,
    pictures_in,
)
from magicfuse_ros.media.source import Frame, Refusal, Source

__all__ = [
    "BAG_SUFFIXES", "COMPRESSED_BAG_SUFFIX", "PICTURE_SUFFIXES", "VIDEO_SUFFIXES", "Frame",
    "Refusal", "Source", "bag_files_in", "is_bag", "open_source",
]  # fmt: skip

VIDEO_SUFFIXES = (
    ".264", ".265", ".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg",
    ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
BAG_SUFFIXES = (".db3", ".mcap")
_HEAD = 4096  # bytes of a metadata.yaml; enough for the key that all of them begin with
COMPRESSED_BAG_SUFFIX = ".zstd"  # follows one of the other suffixes


def is_bag(path: Path) -> bool:
    """Return whether the path looks like a rosbag2: .mcap, .db3, or a folder of a recorder.

    A recorder that was killed leaves a folder without metadata.yaml.
    """
    if not path.is_dir():
        return _is_bag_file(path)
    pictures = any(file.suffix.lower() in PICTURE_SUFFIXES for file in path.iterdir())
    if (path / "metadata.yaml").is_file():
        return not pictures or _describes_bag(path / "metadata.yaml")
    return bool(bag_files_in(path)) and not pictures


def _describes_bag(metadata: Path) -> bool:
    """Return whether a metadata.yaml beside pictures is a bag's; data sets have such files, too."""
    with metadata.open("rb") as file:
        return b"rosbag2_bagfile_information" in file.read(_HEAD)


def _is_bag_file(path: Path) -> bool:
    name = path.name.lower().removesuffix(COMPRESSED_BAG_SUFFIX)
    return name.endswith(BAG_SUFFIXES)


def bag_files_in(folder: Path) -> list[Path]:
    """Return the .mcap and .db3 files of a folder, in natural order.

    If a file exists with and without compression, as players leave it, return the uncompressed one.
    """
    found = [path for path in folder.iterdir() if _is_bag_file(path) and path.is_file()]
    names = {path.name for path in found}
    files = [
        path
        for path in found
        if path.suffix.lower() != COMPRESSED_BAG_SUFFIX or path.stem not in names
    ]
    return sorted(files, key=lambda path: natural_key(path.name))


def open_source(path: Path | str, topic: str | None = None) -> Source:
    """Open a picture, a folder of pictures, a video, or a rosbag2 (folder, .mcap or .db3).

    Args:
        path: the file or folder; its suffix gives the type of a file.
        topic: image topic of a bag; required if the bag has several.

    Raises:
        MediaError: for a path that is missing, empty, of an unknown type or without any frame, for
            a bag without exactly one possible topic, and for a topic if the path is not a bag.
    """
    path = Path(os.path.expanduser(path))
    suffix = path.suffix.lower()
    try:
        if not path.exists():
            raise MediaError(f"'{path}' does not exist")
        bag = is_bag(path)
    except OSError as error:
        raise MediaError(f"'{path}' cannot be read: {error.strerror}") from error
    if topic is not None and not bag:
        raise MediaError(f"topic is {topic!r}, but '{path}' is not a rosbag2")
    if path.is_file():
        if path.stat().st_size == 0:
            raise MediaError(f"'{path}' is empty")
        try:
            refuse_foreign(path)
        except OSError as error:
            raise MediaError(f"'{path}' cannot be read: {error.strerror}") from error
    # Imported on demand: a machine that only reads pictures needs neither PyAV nor rosbags.
    if bag:
        from magicfuse_ros.media.bag import BagSource

        return BagSource(path, topic)
    if path.is_dir():
        return PictureSource(path, pictures_in(path))
    if suffix in VIDEO_SUFFIXES:
        from magicfuse_ros.media.video import VideoSource

        return VideoSource(path)
    if suffix in PICTURE_SUFFIXES:
        return PictureSource(path, [path])
    known = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES, *BAG_SUFFIXES)
    raise MediaError(
        f"'{path}' has the suffix '{path.suffix}'; expected a folder or one of {' '.join(known)}"
    )
