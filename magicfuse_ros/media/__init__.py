"""Pictures, videos and bags as iterators of frames, and writers of pictures and videos."""

from __future__ import annotations

from pathlib import Path

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media.pictures import PICTURE_SUFFIXES, PictureSource, pictures_in
from magicfuse_ros.media.source import Frame, Refusal, Source

__all__ = ["BAG_SUFFIXES", "VIDEO_SUFFIXES", "Frame", "Refusal", "Source", "is_bag", "open_source"]

VIDEO_SUFFIXES = (
    ".avi", ".h264", ".h265", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".ts", ".webm", ".wmv",
)  # fmt: skip
BAG_SUFFIXES = (".db3", ".mcap")


def is_bag(path: Path) -> bool:
    """Say whether the path looks like a rosbag2: folder, .mcap or .db3."""
    if path.suffix.lower() in BAG_SUFFIXES:
        return True
    return path.is_dir() and (path / "metadata.yaml").is_file()


def open_source(path: Path | str, topic: str | None = None) -> Source:
    """Open a picture, a folder of pictures, a video, or a rosbag2 (folder, .mcap or .db3).

    Args:
        path: the file or folder; a file is told by its suffix.
        topic: image topic of a bag; needed where the bag has several.

    Raises:
        MediaError: for a path that is missing, empty, of an unknown type or without any frame, for
            a bag without a single possible topic, and for a topic where there is no bag.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if not path.exists():
        raise MediaError(f"'{path}' does not exist")
    bag = is_bag(path)
    if topic is not None and not bag:
        raise MediaError(f"topic is {topic!r}, but '{path}' is not a rosbag2")
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"'{path}' is empty")
    # Imported where needed: a machine that only reads pictures needs neither PyAV nor rosbags.
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
