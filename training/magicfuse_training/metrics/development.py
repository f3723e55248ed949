# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Scores on the sets for development: held-out frames of repacked CamVid and MSRS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from magicfuse_ros.fuser import FusedFrame
from magicfuse_training.arrays import U8
from magicfuse_training.data.mix import development_sources
from magicfuse_training.metrics.frames import Frames, Measure
from magicfuse_training.metrics.restoration import Condition, degraded


def development_frames(data: Path, names: Sequence[str], every: int) -> tuple[Frames, Frames]:
    """Find the frames of CamVid val and MSRS dev.

    Args:
        data: folder of repacked camvid and msrs.
        names: the bundle's classes.
        every: n, to take every n-th frame.
    """
    camvid, msrs = (Frames(source, names, every) for source in development_sources(data))
    return camvid, msrs


def measured(
    fuse: Callable[[U8], FusedFrame], frames: Frames, kind: Condition, measures: Sequence[Measure]
) -> dict[str, Any]:
    """Return the scores of a set: day frames under a condition, night frames as they are."""
    for frame in track(frames, description=f"{frames.data.kind}, {kind}"):
        image = frame.visible if frame.night else degraded(frame.visible, kind, frame.index)
        fused = fuse(image)
        for measure in measures:
            if measure.applies(frame):
                measure.add(frame, image, fused)
    scores: dict[str, Any] = {}
    for measure in measures:
        scores |= measure.scores()
    return scores
