# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from magicfuse_ros.ros.camera_infos import CameraInfos


def header(stamp: int, frame: str = "left") -> Header:
    return Header(stamp=Time(sec=stamp), frame_id=frame)


def info(stamp: int, focal: float = 1.0, frame: str = "left", **changes: Any) -> CameraInfo:
    fields = {"width": 64, "height": 48, **changes}
    return CameraInfo(header=header(stamp, frame), k=[focal, *[0.0] * 8], **fields)


def focal(found: CameraInfo | None) -> float | None:
    return None if found is None else float(found.k[0])


def test_the_one_with_the_stamp_of_the_image_belongs_to_it() -> None:
    infos = CameraInfos()
    assert infos.find(header(1), 48, 64) is None and infos.misfit == ""
    for stamp in range(1, 10):
        infos.add(info(stamp, focal=stamp, frame=""))
    found = infos.find(header(4), 48, 64)
    assert focal(found) == 4 and found is not None and found.header == header(4)
    assert focal(infos.find(header(4), 48, 64)) == 4
    assert focal(infos.find(header(20), 48, 64)) == 9, "latched, or lost for this image"


def test_one_of_another_camera_or_size_does_not() -> None:
    infos = CameraInfos()
    infos.add(info(1, frame="right"))
    assert infos.find(header(5), 48, 64) is None
    assert infos.misfit == "camera_info is of 'right'; the image is of 'left'"
    infos.add(info(2))
    assert infos.find(header(5), 96, 128) is None
    assert infos.misfit == "camera_info is for 64x48; the image is 128x96"
    assert infos.find(header(5), 48, 64) is not None and infos.misfit == ""


def test_a_stamp_of_0_says_nothing_of_whose_it_is() -> None:
    infos = CameraInfos()
    infos.add(info(0, frame="right"))
    assert infos.find(header(0), 48, 64) is None
    assert infos.misfit == "camera_info is of 'right'; the image is of 'left'"
    infos.add(info(0))
    assert infos.find(header(0), 48, 64) is not None


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"binning_x": 2, "binning_y": 2}, (24, 32)),
        ({"roi": RegionOfInterest(x_offset=8, y_offset=8, width=20, height=10)}, (10, 20)),
        ({"roi": RegionOfInterest(width=32, height=16), "binning_x": 2, "binning_y": 2}, (8, 16)),
    ],
)
def test_its_size_is_that_of_the_region_with_binning(
    changes: dict[str, Any], size: tuple[int, int]
) -> None:
    infos = CameraInfos()
    infos.add(info(1, **changes))
    assert infos.find(header(1), *size) is not None
    assert infos.find(header(1), size[0] + 1, size[1]) is None
