"""Which camera_info belongs to an image."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

_LATEST = 32  # of images that wait or are in work, and of a camera_info that comes early


class CameraInfos:
    """The camera's latest calibrations. Thread-safe.

    1. The one with the stamp of the image belongs to it.
    2. Else the latest does: one that is latched, comes now and then, or got lost this time. It must
       be of the image's frame; a frame without a name fits every one.
    3. Its size must be the image's: that of the sensor, or of its region of interest with binning.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # With stamp and frame, as a header is replaced where it is published.
        self._latest: deque[tuple[tuple[int, int], str, CameraInfo]] = deque(maxlen=_LATEST)
        self._misfit = ""

    @property
    def misfit(self) -> str:
        """Why the latest image had none, though some came; empty otherwise."""
        return self._misfit

    def add(self, info: CameraInfo) -> None:
        """Take note of a message, which then belongs to this object."""
        with self._lock:
            self._latest.append((_stamp(info.header.stamp), info.header.frame_id, info))

    def find(self, header: Header, height: int, width: int) -> CameraInfo | None:
        """Return the camera_info of an image with its header, or None."""
        with self._lock:
            latest = list(self._latest)
        self._misfit = ""
        if not latest:
            return None
        stamp = _stamp(header.stamp)
        exact = [entry for entry in latest if entry[0] == stamp]
        _, frame, info = (exact or latest)[-1]
        if not exact and frame and header.frame_id and frame != header.frame_id:
            self._misfit = f"camera_info is of '{frame}'; the image is of '{header.frame_id}'"
            return None
        if (width, height) not in _sizes(info):
            said = f"{info.width}x{info.height}"
            self._misfit = f"camera_info is for {said}; the image is {width}x{height}"
            return None
        info.header = header
        return info


def _sizes(info: Any) -> set[tuple[int, int]]:
    """Return the sizes of the images that a camera_info may describe."""
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    binned = width // max(info.binning_x, 1), height // max(info.binning_y, 1)
    return {binned, (info.width, info.height)}


def _stamp(stamp: Time) -> tuple[int, int]:
    return stamp.sec, stamp.nanosec
