# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Maps images of any size to the fixed size of the networks, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Fit = Literal["letterbox", "stretch"]
FITS: tuple[Fit, ...] = ("letterbox", "stretch")
Size = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Geometry:
    """The place of an image of size `source` in the network's image of size `network`."""

    source: Size
    network: Size
    top: int
    left: int
    content: Size  # size of the image inside the network's image

    @classmethod
    def fit(cls, source: Size, network: Size, fit: Fit) -> Geometry:
        """Place an image: `letterbox` keeps its shape and centres it; `stretch` fills the input."""
        if fit == "stretch":
            return cls(source, network, 0, 0, network)
        scale = min(network[0] / source[0], network[1] / source[1])
        rows = min(network[0], max(1, round(source[0] * scale)))
        columns = min(network[1], max(1, round(source[1] * scale)))
        top, left = (network[0] - rows) // 2, (network[1] - columns) // 2
        return cls(source, network, top, left, (rows, columns))

    def forward(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return an image [rows, columns, 3] of size `source` at size `network`, C-contiguous.

        The padding mirrors the image, so that the networks see no hard edge. If there is nothing
        to do, the result is the input itself.
        """
        # cv2's area interpolation shifts an image that grows in one of its directions.
        shrinks = self.content[0] <= self.source[0] and self.content[1] <= self.source[1]
        resized = _resize(image, self.content, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        if self.content == self.network:
            return np.ascontiguousarray(resized)
        bottom = self.network[0] - self.content[0] - self.top
        right = self.network[1] - self.content[1] - self.left
        border = cv2.BORDER_REFLECT_101
        padded = cv2.copyMakeBorder(resized, self.top, bottom, self.left, right, border)
        return np.asarray(padded, np.uint8)

    def image_back(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Scale a colour or gray image of size `network` to size `source`, linearly."""
        return self._back(image, cv2.INTER_LINEAR)

    def labels_back(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Scale a mask, or values that go with its pixels, to size `source`, by nearest pixel."""
        return self._back(labels, cv2.INTER_NEAREST_EXACT)

    def _back(self, image: npt.NDArray[np.uint8], interpolation: int) -> npt.NDArray[np.uint8]:
        rows = slice(self.top, self.top + self.content[0])
        columns = slice(self.left, self.left + self.content[1])
        return np.ascontiguousarray(_resize(image[rows, columns], self.source, interpolation))


def _resize(image: npt.NDArray[np.uint8], size: Size, interpolation: int) -> npt.NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=interpolation), np.uint8)
