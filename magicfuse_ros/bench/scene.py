# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The image that self-tests fuse. It is drawn, so no file is needed."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def street(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a street by day, RGB [height, width, 3]: sky, houses, road, cars and people.

    Equal sizes give equal pixels with every release of numpy and OpenCV: there is no anti-aliasing,
    and the noise has a fixed seed.
    """
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, np.newaxis, np.newaxis]
    sky = np.array([120, 160, 220], np.float32) + rows * np.array([160, 110, 40], np.float32)
    image = np.ascontiguousarray(np.broadcast_to(sky, (height, width, 3)).clip(0, 255), np.float32)

    def box(left: float, top: float, right: float, bottom: float, *color: int) -> None:
        corners = (
            (int(left * width), int(top * height)),
            (int(right * width), int(bottom * height)),
        )
        cv2.rectangle(image, *corners, color, cv2.FILLED)

    box(0.00, 0.20, 0.30, 0.60, 150, 110, 90)  # houses
    box(0.72, 0.10, 1.00, 0.60, 110, 100, 100)
    for column in range(6):
        box(0.03 + 0.045 * column, 0.28, 0.05 + 0.045 * column, 0.36, 40, 45, 60)  # windows
    box(0.00, 0.58, 1.00, 1.00, 150, 145, 140)  # pavement
    road = np.array([[0.42, 0.58], [0.58, 0.58], [1.0, 1.0], [0.0, 1.0]]) * (width, height)
    cv2.fillConvexPoly(image, road.astype(np.int32), (80, 80, 85))
    box(0.495, 0.70, 0.505, 0.95, 220, 220, 215)  # lane mark
    box(0.58, 0.55, 0.74, 0.72, 160, 30, 30)  # car
    box(0.60, 0.50, 0.72, 0.56, 50, 60, 70)
    for left, height_of in ((0.20, 0.26), (0.30, 0.20)):  # people
        box(left, 0.78 - height_of, left + 0.035, 0.78, 60, 50, 110)
        box(left + 0.008, 0.74 - height_of, left + 0.027, 0.78 - height_of, 210, 170, 150)
    noise = np.random.default_rng(0).integers(-6, 7, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)
