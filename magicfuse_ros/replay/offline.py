# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Fuses every image of a bag as fast as possible and writes the results to a new bag.

The new bag has the topics of `fuse_node`. Each message has the header of its camera image and the
time at which that image was recorded. The same bag, bundle, backend and number of threads give the
same messages, bit for bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from magicfuse_ros import topics
from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.camera_info import misfit
from magicfuse_ros.errors import FrameError
from magicfuse_ros.fuser import FusedFrame, Fuser
from magicfuse_ros.image_codec import Pixels, encode_bgr8, encode_mono8
from magicfuse_ros.media.bag import BagSource, Calibration, RecordedFrame
from magicfuse_ros.media.bag_reader import CAMERA_INFO, RAW
from magicfuse_ros.media.bag_writer import LABEL_INFO, BagWriter
from magicfuse_ros.media.source import Refusal


@dataclass
class ReplayResult:
    """The outcome of the images.

    Attributes:
        total_ms: the fuser's time for each fused image.
        refused: images that could not be decoded or fused.
        missing: further images that the bag announces but does not hold.
        damaged: what else is wrong with the bag, such as a camera_info that does not fit its
            images, in sentences: it costs no image.
        seconds: time from the first to the last image, including reading and writing.
    """

    total_ms: list[float] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    missing: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        """Return counts, refusals, damage and times for a JSON report."""
        fused = len(self.total_ms)
        return {
            "frames": {
                "read": fused + len(self.refused),
                "fused": fused,
                "refused": len(self.refused),
                **({"missing": self.missing} if self.missing else {}),
            },
            "refused": [{"name": r.name, "reason": r.reason} for r in self.refused],
            "damaged": self.damaged,
            "fps": round(fused / self.seconds, 2) if self.seconds else 0.0,
            "median_ms": round(median(self.total_ms), 3) if self.total_ms else None,
        }


def replay_offline(
    source: BagSource,
    fuser: Fuser,
    classes: Sequence[SemanticClass],
    bag: Path,
    show: Callable[[int], None],
    node: str = topics.NODE,
    stop: Callable[[], bool] = lambda: False,
) -> ReplayResult:
    """Fuse all images of a bag.

    Args:
        source: the bag.
        fuser: a fuser of the bundle.
        classes: the classes of the bundle.
        bag: the folder of the new bag.
        show: called after each image with the number of finished images.
        node: full name of the node whose topics the new bag has.
        stop: called before each image; if it returns True, fusing stops and the bag is finished.

    Raises:
        MediaError: if the new bag cannot be written.
        BackendError: if a network fails.
    """
    result = ReplayResult()
    begin = perf_counter()
    refused: list[Refusal] = []
    with BagWriter(bag, compress=True) as writer:
        images = topics.image_topics(fuser.outputs)
        calibrations = source.calibrations(result.damaged)
        recording = _Recording(writer, node, images, classes, calibrations, result.damaged)
        for frame in source:
            if stop():
                break
            try:
                fused = fuser(frame.image)
            except FrameError as error:
                refused.append(Refusal(frame.name, str(error)))
                continue
            recording.write(frame, fused)
            result.total_ms.append(fused.stages_ms["total"])
            show(len(result.total_ms) + len(refused) + len(source.refused))
    result.seconds = perf_counter() - begin
    result.missing = source.missing
    result.damaged += source.damage
    result.refused = sorted([*source.refused, *refused], key=lambda refusal: refusal.name)
    return result


class _Recording:
    """Writes the messages that `fuse_node` would publish."""

    def __init__(
        self,
        writer: BagWriter,
        node: str,
        images: Sequence[topics.ImageTopic],
        classes: Sequence[SemanticClass],
        calibrations: list[Calibration],
        damaged: list[str],
    ) -> None:
        self._writer = writer
        self._node = node
        self._images = images
        self._classes = classes
        self._calibrations = calibrations
        self._by_stamp = {found.stamp_ns: found for found in calibrations if found.stamp_ns}
        self._damaged = damaged
        self._labelled = False
        writer.add_topic(f"{node}/{topics.LABELS}", LABEL_INFO, latched=True)
        for topic in images:
            writer.add_topic(f"{node}/{topic.name}", RAW)
        if calibrations:
            writer.add_topic(f"{node}/{topics.CAMERA_INFO}", CAMERA_INFO)

    def write(self, frame: RecordedFrame, fused: FusedFrame) -> None:
        header = frame.header
        if not self._labelled:
            self._put(topics.LABELS, frame, self._labels(header))
            self._labelled = True
        for topic in self._images:
            image = topic.pixels(fused, self._classes)
            if image is not None:
                self._put(topic.name, frame, self._image(image, header))
        if self._calibrations:
            # that of the stamp, else the latest one, or the first one if the image came before it
            infos = self._calibrations
            index = bisect_right(infos, frame.recorded_ns, key=lambda found: found.recorded_ns)
            latest = infos[max(0, index - 1)]
            exact = self._by_stamp.get(frame.stamp_ns)
            found, known = (exact, "") if exact else (latest, latest.frame)
            height, width = frame.image.shape[:2]
            reason = misfit(found.info, known, header.frame_id, width, height)
            if not reason:
                self._put(topics.CAMERA_INFO, frame, replace(found.info, header=header))
            elif (sentence := f"{reason}; it is left out") not in self._damaged:
                self._damaged.append(sentence)

    def _put(self, name: str, frame: RecordedFrame, message: Any) -> None:
        self._writer.write(f"{self._node}/{name}", frame.recorded_ns, message)

    def _image(self, image: Pixels, header: Any) -> Any:
        gray = image.ndim == 2
        encoded = encode_mono8(image) if gray else encode_bgr8(image)
        size = (encoded.height, encoded.width)
        encoding = "mono8" if gray else "bgr8"
        return self._make(RAW, header, *size, encoding, 0, encoded.step, encoded.data)

    def _labels(self, header: Any) -> Any:
        pairs = [self._make("vision_msgs/msg/VisionClass", c.id, c.name) for c in self._classes]
        return self._make(LABEL_INFO, header, pairs, 0.0)

    def _make(self, msgtype: str, *fields: Any) -> Any:
        return self._writer.types.types[msgtype](*fields)
