# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The full evaluation of a bundle: the scores of `score`, more scores, and other methods.

Day frames are also put under rain and noise (`restoration.ALL_CONDITIONS`). Every score of `score`
is measured under every condition, and in addition:

    by day                    `restoration.Structure`: SSIM and MS-SSIM
    labels that people drew   `light.LightByClass`: what is lit by mistake
    every frame               `rows.Rows`: MagImg as a fused image next to simpler ones and peers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.output_files import make_folder
from magicfuse_training.data.errors import DataError
from magicfuse_training.metrics.frames import Frames, Measure
from magicfuse_training.metrics.light import LightByClass
from magicfuse_training.metrics.peers import Peer
from magicfuse_training.metrics.people_scores import People
from magicfuse_training.metrics.ranking import Ranking, draw_examples
from magicfuse_training.metrics.restoration import ALL_CONDITIONS, Structure
from magicfuse_training.metrics.rows import Rows, usual_heat
from magicfuse_training.metrics.score import NIGHT, Suite, basic_measures, images_of, score_set
from magicfuse_training.metrics.thermal import Thermal

Files = Mapping[str, Mapping[str, Mapping[str, Path]]]  # by condition, peer and frame


@dataclass(frozen=True)
class Evaluated:
    """The results of one set: its scores, and a JPEG of frames by condition."""

    scores: dict[str, Any]
    examples: dict[str, bytes]


def files_of_peers(
    peers: Sequence[Peer], sets: Mapping[str, Frames]
) -> dict[str, dict[str, dict[str, dict[str, Path]]]]:
    """Find the fused images of other methods, by set, condition, name of the method and frame.

    Raises:
        DataError: if a method has no frames at all, or only some of the frames that it needs.
    """
    found: dict[str, dict[str, dict[str, dict[str, Path]]]] = {
        name: {condition: {} for condition in (*ALL_CONDITIONS, NIGHT)} for name in sets
    }
    for peer in peers:
        for name, by_condition in found.items():
            for condition, files in by_condition.items():
                night = condition == NIGHT
                names, left_out = sets[name].names_of(night), sets[name].left_out(night)
                if names and (there := peer.files(name, condition, names, left_out)):
                    files[peer.name] = there
        if not any(peer.name in files for some in found.values() for files in some.values()):
            first = next(iter(sets))
            name = next(n for night in (False, True) for n in sets[first].names_of(night))
            raise DataError(
                f"'{peer.folder}' holds no fused image of '{peer.name}'; expected "
                f"'{name}.png', or 'dark/{name}.png', or '{first}/dark/{name}.png'"
            )
    return found


def evaluate_set(
    fuser: Fuser, bundle: Bundle, frames: Frames, name: str, peers: Files
) -> Evaluated:
    """Evaluate a bundle on one set.

    Args:
        fuser: runs the bundle.
        bundle: the bundle.
        frames: frames of the set.
        name: name of the set, shown during the evaluation.
        peers: files of other methods for the set, from `files_of_peers`.
    """
    manifest = bundle.manifest
    names = [c.name for c in manifest.classes]
    rankings = {c: Ranking(len(names)) for c in (*ALL_CONDITIONS, NIGHT)}

    def of(frames: Frames, condition: str) -> list[Measure]:
        some: list[Measure] = [
            *basic_measures(fuser, names, condition),
            Structure(),
            LightByClass(names),
            People(names),
            Rows(manifest, usual_heat(), peers[condition], frames.data.width_factor),
            rankings[condition],
        ]
        if not any(isinstance(measure, Thermal) for measure in some):
            some.append(Thermal("thermal_uncertainty" in fuser.outputs))
        return some

    scores = score_set(fuser, Suite(ALL_CONDITIONS, of), frames, name)
    examples = {
        condition: draw_examples(chosen, frames, condition, ALL_CONDITIONS, fuser, manifest.classes)
        for condition, ranking in rankings.items()
        if (chosen := ranking.chosen())
    }
    return Evaluated(scores, examples)


def write_inputs(frames: Frames, name: str, folder: Path) -> int:
    """Write every input frame to `folder`/SET/CONDITION/NAME.png; return their number.

    Raises:
        DataError: see `Frames`; also if a file cannot be written.
    """
    count = 0
    for frame in frames:
        for condition, image in images_of(frame, ALL_CONDITIONS).items():
            path = folder / name / condition / f"{frame.name}.png"
            make_folder(path.parent)
            if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise DataError(f"cannot write '{path}'")
            count += 1
    return count
