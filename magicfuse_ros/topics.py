# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The topics that `fuse_node` publishes and that bags of its outputs hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.fuser import FusedFrame, Output
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.overlay import overlay, with_legend

NODE = "/fuse_node"
MAG_IMAGE = "mag_image"
MASK = "segmentation/mask"
OVERLAY = "segmentation/overlay"
LABELS = "segmentation/label_info"
CAMERA_INFO = "camera_info"
DIAGNOSTICS = "/diagnostics"  # not below the node's name


@dataclass(frozen=True)
class ImageTopic:
    """One image topic.

    Attributes:
        name: name below the node's name.
        needs: the outputs of a fused frame that it needs.
        pixels: returns its image, RGB [H, W, 3] or gray [H, W], uint8; the frame must have `needs`.
    """

    name: str
    needs: frozenset[Output]
    pixels: Callable[[FusedFrame, Sequence[SemanticClass]], Pixels | None]


def _overlay(frame: FusedFrame, classes: Sequence[SemanticClass]) -> Pixels:
    assert frame.mag_image is not None and frame.mask is not None
    return with_legend(overlay(frame.mag_image, frame.mask, classes), classes)


def _of(name: str, output: Output) -> ImageTopic:
    return ImageTopic(name, frozenset({output}), lambda frame, _: getattr(frame, output))


IMAGE_TOPICS = (
    _of(MAG_IMAGE, "mag_image"),
    _of("restored_image", "restored"),
    _of("thermal_estimate", "thermal_estimate"),
    _of("thermal_uncertainty", "thermal_uncertainty"),
    _of(MASK, "mask"),
    _of("segmentation/confidence", "confidence"),
    ImageTopic(OVERLAY, frozenset({"mag_image", "mask"}), _overlay),
)


def image_topics(outputs: Collection[Output]) -> list[ImageTopic]:
    """Return the image topics that can be made from these outputs."""
    return [topic for topic in IMAGE_TOPICS if topic.needs.issubset(outputs)]
