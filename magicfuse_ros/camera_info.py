# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Whether a camera_info describes an image. It works on the messages of rclpy and of rosbags."""

from __future__ import annotations

from typing import Any


def misfit(info: Any, info_frame: str, frame: str, width: int, height: int) -> str:
    """Return why a camera_info does not describe an image; empty if it does.

    An empty frame fits every frame. The size may be that of the sensor, or of its region of
    interest with binning.

    Args:
        info: sensor_msgs/CameraInfo.
        info_frame: frame_id of its header; empty if the stamp says already that they belong
            together.
        frame: frame_id of the image.
        width: width of the image.
        height: height of the image.
    """
    if info_frame and frame and info_frame != frame:
        return f"camera_info is of '{info_frame}'; the image is of '{frame}'"
    if not (info.width and info.height):
        return "camera_info is empty: the camera is not calibrated"
    if (width, height) not in _sizes(info):
        return f"camera_info is for {info.width}x{info.height}; the image is {width}x{height}"
    return ""


def _sizes(info: Any) -> set[tuple[int, int]]:
    """Return the sizes of the images that a camera_info may describe."""
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    binned = width // max(info.binning_x, 1), height // max(info.binning_y, 1)
    return {binned, (info.width, info.height)}
