# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train thermal`: measures how far the thermal estimate generalises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser, Output
from magicfuse_training.commands import options
from magicfuse_training.console import say
from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.mix import Source, by_name
from magicfuse_training.data.scenes import Scenes
from magicfuse_training.metrics.pages import check_page, write_page, write_pictures
from magicfuse_training.metrics.thermal_detail import Part, compare, distances, relation
from magicfuse_training.metrics.thermal_page import END, START, page, plots

_OUTPUTS: frozenset[Output] = frozenset({"thermal_estimate", "thermal_uncertainty"})


def thermal_command(
    bundle: options.BundleFolder,
    data: options.Data,
    page_file: Annotated[
        Path,
        typer.Option(
            "--page", help="Markdown page whose marked section is replaced; the plots go beside it"
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Option(
            help="a second bundle for the table by set, such as one trained on other sets"
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, help="most frames of each split, evenly spaced")
    ] = 40,
    backend: str = "auto",
) -> None:
    """Measure how far the thermal estimate generalises, and write tables and plots into a page.

    It is measured by set, by class, by frame and by distance from training; frames of the training
    split are also measured, for comparison. What a bundle was trained on is in its `bundle.json`.
    The page has no frames of the sets.
    """
    named = by_name([Source.parse(text) for text in data])
    check_page(page_file, START, END)
    bundles = [Bundle.load(path) for path in (bundle, other) if path is not None]
    compared: dict[str, list[Part]] = {}
    for loaded in bundles:
        title = f"{loaded.manifest.name}, {loaded.manifest.provenance.created}"
        title = title if title not in compared else f"{title}, the other"
        fuser = Fuser(loaded, select(backend, precision="fp32"))
        compared[title] = [
            part
            for name, source in named.items()
            for part in compare_set(fuser, loaded, source, name, frames)
        ]
    names = [c.name for c in bundles[0].manifest.classes]
    pictures = write_pictures(page_file, plots(compared, names))
    write_page(page_file, START, END, page(compared, names, pictures))
    say(f"page: {page_file}")


def compare_set(fuser: Fuser, bundle: Bundle, source: Source, name: str, most: int) -> list[Part]:
    """Compare the estimates of a set's training split and held-out split, by day and at night.

    Args:
        fuser: runs the bundle.
        bundle: the bundle.
        source: the set.
        name: name of the set.
        most: limit for the frames of each part.

    Raises:
        DataError: if the set has no thermal images, or a file is damaged.
    """
    manifest, data = bundle.manifest, dataset(source.kind)
    if "thermal" not in data.templates:
        raise DataError(f"'{source.root}' as {source.kind} has no thermal images")
    names = [c.name for c in manifest.classes]
    splits = dict.fromkeys(s for s in (*source.not_held_out[:1], source.held_out_split) if s)
    indices: dict[str, tuple[Scenes, dict[bool, list[int]]]] = {}
    trained: dict[bool, list[str]] = {False: [], True: []}
    for split in splits:
        scenes = Scenes(data, source.root, split, manifest.height, manifest.width, names)
        by_night: dict[bool, list[int]] = {False: [], True: []}
        for i, record in enumerate(scenes.records):
            if record.thermal is not None:
                by_night[not scenes.is_clean(i)].append(i)
        indices[split] = scenes, by_night
        if relation(manifest.provenance.data, source.kind, split) == "trained on":
            for night, some in by_night.items():
                trained[night] += [scenes.records[i].name for i in some]
    parts = []
    for split, (scenes, by_night) in indices.items():
        known = relation(manifest.provenance.data, source.kind, split)
        for night, some in by_night.items():
            if not some:
                continue
            part = Part(name, split, night, known)
            for i in track(_spread(some, most), description=part.title):
                scene = scenes[i]
                fused = fuser(scene.visible, _OUTPUTS.intersection(fuser.outputs))
                part.frames.append(compare(scene, fused, len(names)))
            part.distances = distances([f.name for f in part.frames], trained[night])
            parts.append(part)
    if not parts:
        raise DataError(f"'{source.root}' as {source.kind} has no thermal images")
    return parts


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the indices, evenly spread."""
    step = max(len(indices) / most, 1.0)
    return [indices[int(i * step)] for i in range(min(len(indices), most))]
