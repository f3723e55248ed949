# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures how people in hand-drawn boxes are shown and found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_training.arrays import F64, U8
from magicfuse_training.data.classes import ids_of_people
from magicfuse_training.metrics.bootstrap import Figure, figure_of, share
from magicfuse_training.metrics.frames import Frame, given
from magicfuse_training.metrics.images import luma
from magicfuse_training.metrics.people import area, contrast

FOUND = 0.1  # share of a box that is called a pedestrian
_SHOWN = ("visible", "restored", "mag_image")
_CONTRASTS = ("thermal_estimate", "visible", "mag_image")


class People:
    """People in the boxes of a set with thermal images.

    person_contrast       mean inside a box of the thermal image minus mean of a ring around it
                          (`people.contrast`), summed over boxes: for the thermal estimate, the
                          visible image and MagImg, each divided by that of the real thermal image
                          (at MSRS's gain). 1: as in the real image; 0: nobody stands out; below 0:
                          darker
    person_contrast_real  the sum for the real thermal image, gray levels
    pedestrian_pixels     number of pixels called a pedestrian
    pedestrian_pixels_in_person_box_percent   share of them in a box of any image, 0 to 100 %
    person_boxes          number of boxes on the thermal images
    person_boxes_found_percent   share of boxes of which at least a tenth is called a pedestrian, 0
                                 to 100 %
    luma                  mean of the visible, restored and fused image, 0 to 255
    """

    outputs: frozenset[Output] = frozenset({"thermal_estimate", "restored", "mag_image", "mask"})

    def __init__(self, names: Sequence[str]) -> None:
        """Store the bundle's classes."""
        self._ids = ids_of_people(names)
        self._frames: list[dict[str, float]] = []  # sums over frames, by name

    def __add__(self, other: People) -> People:
        """Return the scores of the frames of both."""
        both = People([])
        both._frames = self._frames + other._frames
        return both

    def applies(self, frame: Frame) -> bool:
        """Return whether it has boxes and a thermal image; the bundle must know people."""
        return frame.people is not None and bool(self._ids)

    def add(self, frame: Frame, image: U8, fused: FusedFrame) -> None:
        """Measure the people of one frame."""
        boxes, sums = frame.people or [], defaultdict[str, float](float)
        shown = {
            "visible": luma(image),
            "restored": luma(given(fused.restored)),
            "mag_image": luma(given(fused.mag_image)),
        }
        for name, gray in shown.items():
            sums[f"luma {name}"] = float(gray.mean())
        shown["thermal_estimate"] = given(fused.thermal_estimate)
        shown["real"] = given(frame.usual)
        for box in boxes:
            if contrast(shown["real"], box, boxes) is not None:
                for name, gray in shown.items():
                    sums[f"contrast {name}"] += contrast(gray, box, boxes) or 0.0
        person = np.isin(given(fused.mask), self._ids)
        inside = np.zeros(person.shape, bool)
        for box in frame.anybody:
            inside[area(box)] = True
        sums["called"] = int(person.sum())
        sums["called inside"] = int((person & inside).sum())
        sums["boxes"] = len(boxes)
        sums["found"] = sum(float(person[area(box)].mean()) >= FOUND for box in boxes)
        self._frames.append(dict(sums))

    def scores(self) -> dict[str, object]:
        """Return the scores; shares of nothing are NaN."""
        if not self._frames:
            return {}
        return {
            "people": {
                "frames": len(self._frames),
                "person_contrast": {
                    name: self._ratio(f"contrast {name}", "contrast real") for name in _CONTRASTS
                },
                "person_contrast_real": float(self._column("contrast real").sum()),
                "pedestrian_pixels": int(self._column("called").sum()),
                "pedestrian_pixels_in_person_box_percent": self._ratio(
                    "called inside", "called", 100
                ),
                "person_boxes": int(self._column("boxes").sum()),
                "person_boxes_found_percent": self._ratio("found", "boxes", 100),
                "luma": {name: float(self._column(f"luma {name}").mean()) for name in _SHOWN},
            }
        }

    def _column(self, name: str) -> F64:
        return np.array([frame.get(name, 0.0) for frame in self._frames], np.float64)

    def _ratio(self, part: str, whole: str, times: float = 1.0) -> Figure:
        """Return `times` the ratio of two sums over frames."""
        rows = np.stack([self._column(part), self._column(whole)], 1)
        return figure_of(rows, lambda m: times * share(m[:, 0], m[:, 1]))
