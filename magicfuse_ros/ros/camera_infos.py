# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Finds the camera_info that belongs to an image."""

from __future__ import annotations

import threading
from collections import deque

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from magicfuse_ros.camera_info import misfit

_LATEST = 32  # enough for waiting images, images in progress, and an early camera_info
_NO_STAMP = (0, 0)


class CameraInfos:
    """The camera's latest calibrations. Thread-safe.

    1. The calibration with the stamp of the image belongs to it; a stamp of 0 is none.
    2. If there is none, the latest one does: calibrations may be latched, rarely published, or lost
       this time. Its frame must be the image's; an empty frame name matches every frame.
    3. Its size must match the image: the size of the sensor, or of its region of interest with
       binning.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Kept with stamp and frame, because publishing replaces the header.
        self._latest: deque[tuple[tuple[int, int], str, CameraInfo]] = deque(maxlen=_LATEST)
        self.misfit = ""  # why the latest image found no match among those received

    def add(self, info: CameraInfo) -> None:
        """Add a message, which then belongs to this object."""
        with self._lock:
            self._latest.append((_stamp(info.header.stamp), info.header.frame_id, info))

    def empty(self) -> bool:
        """Return whether none has arrived."""
        return not self._latest

    def find(self, header: Header, height: int, width: int) -> CameraInfo | None:
        """Return the camera_info of an image, with the image's header, or None."""
        with self._lock:
            latest = list(self._latest)
        self.misfit = ""
        if not latest:
            return None
        stamp = _stamp(header.stamp)
        exact = [entry for entry in latest if entry[0] == stamp != _NO_STAMP]
        _, frame, info = (exact or latest)[-1]
        known = "" if exact else frame
        self.misfit = misfit(info, known, header.frame_id, width, height)
        if self.misfit:
            return None
        info.header = header
        return info


def _stamp(stamp: Time) -> tuple[int, int]:
    return stamp.sec, stamp.nanosec
