# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The training data of a run: one or more data sets, in groups from which crops are drawn.

A group holds the scenes of one set under one condition. Stages set how often each condition is
drawn. Within a condition, a group is drawn in proportion to the square root of its size. By file
count, 2,700 frames of one set would leave 140 frames of another unseen; with equal shares, the 140
would be seen twenty times as often.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from magicfuse_ros.bundle import Provenance
from magicfuse_training.data.classes import CLASSES, IGNORE
from magicfuse_training.data.crops import LABELLED
from magicfuse_training.data.datasets import DATASETS, dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.night_scene import render_night
from magicfuse_training.data.scenes import Scene, Scenes, known_classes

HELD_OUT = ("val", "dev", "test")
IN_MEMORY = 8000  # scenes: some 10 GB; decoding them each time would take a core
CONDITIONS = ("by day without a thermal image", "by day with one", "at night")


@dataclass(frozen=True)
class Group:
    """Scenes of one data set under one condition, given as an index into CONDITIONS.

    `paired` tells whether any of them has a thermal image: those at night may have none. `labelled`
    tells whether any has a label, be it a coarse one or another network's.
    """

    condition: int
    scenes: Sequence[Scene]
    paired: bool
    labelled: bool = True


Groups = list[Group]


@dataclass(frozen=True)
class Source:
    """A data set on this machine."""

    kind: str
    root: Path

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read "KIND:ROOT".

        Raises:
            DataError: for any other form, or an unknown kind.
        """
        kind, colon, root = text.partition(":")
        if not colon or not root:
            raise DataError(
                f"data is '{text}'; expected KIND:ROOT, as in 'folder:my_images', "
                f"with KIND one of {', '.join(DATASETS)}"
            )
        dataset(kind)
        return cls(kind, Path(os.path.expanduser(root)))

    @property
    def training_split(self) -> str:
        """The split to train on: "train", or the only one that is not held out.

        Raises:
            DataError: if there are several of those, or none.
        """
        found = self.not_held_out
        if len(found) != 1:
            splits = ", ".join(dataset(self.kind).splits_in(self.root))
            raise DataError(
                f"'{self.root}' has the splits {splits}; expected 'train', or a single one beside "
                f"{', '.join(HELD_OUT)}"
            )
        return found[0]

    @property
    def not_held_out(self) -> list[str]:
        """The split "train" if there is one, else all splits that are not held out."""
        splits = dataset(self.kind).splits_in(self.root)
        if "train" in splits or not splits:
            return ["train"]
        return [name for name in splits if name not in HELD_OUT]

    @property
    def held_out_split(self) -> str | None:
        """The split for validation during training, if there is one."""
        splits = dataset(self.kind).splits_in(self.root)
        return next((name for name in HELD_OUT if name in splits), None)

    def folder(self, split: str) -> Path:
        """Return the folder of a split, or the root if a set has no such folder."""
        inside = self.root / split
        return inside if inside.is_dir() else self.root


def development_sources(data: Path) -> list[Source]:
    """Return repacked CamVid and MSRS, the sets in `data`/camvid and `data`/msrs."""
    return [Source(f"{kind}-repacked", data / kind) for kind in ("camvid", "msrs")]


def by_name(sources: Sequence[Source]) -> dict[str, Source]:
    """Return sets by the names of their folders; a repeated name gets a number."""
    named: dict[str, Source] = {}
    for source in sources:
        name = source.root.resolve().name
        named[name if name not in named else f"{name}, {source.kind} {len(named) + 1}"] = source
    return named


@dataclass(frozen=True)
class Trained:
    """The training data of a run, as recorded in its folder and in the bundle."""

    data: list[str]
    terms: str

    @classmethod
    def of(cls, made: Provenance) -> Trained:
        """Return what a bundle was trained on."""
        return cls(made.data, made.weights_license)


NOTHING = Trained([], "")


def joined(first: Trained, second: Trained) -> Trained:
    """Return what weights have seen that were trained on both, each set and each term once."""
    terms = dict.fromkeys([*first.terms.split("; "), *second.terms.split("; ")])
    return Trained(list(dict.fromkeys([*first.data, *second.data])), "; ".join(filter(None, terms)))


def describe(sources: Sequence[Source]) -> Trained:
    """Describe the training splits of some sets."""
    data, terms = [], []
    for source in sources:
        declared, split = dataset(source.kind), source.training_split
        count = len(declared.records(source.root, split))
        data.append(f"{source.kind}, split {split}: {count} scenes ({declared.source})")
        terms.append(f"{source.kind}: {declared.terms}")
    return Trained(data, "; ".join(terms))


class _Lazy(Sequence[Scene]):
    """Scenes of several sets, each made on demand, because all of them would fill the memory."""

    def __init__(self, places: Sequence[tuple[Sequence[Scene], int]]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        if isinstance(index, slice):
            return [self._scene(i) for i in range(len(self))[index]]
        return self._scene(index)

    def _scene(self, index: int) -> Scene:
        scenes, i = self.places[index]
        return scenes[i]


class _MadeNights(_Lazy):
    """Day scenes made night."""

    def __init__(self, places: Sequence[tuple[Sequence[Scene], int]], seed: int) -> None:
        super().__init__(places)
        self.seed = seed

    def _scene(self, index: int) -> Scene:
        scene, rng = super()._scene(index), np.random.default_rng([self.seed, index])
        known = known_classes(scene.label, scene.teacher)
        night, target = render_night(scene.visible, known, rng)
        return replace(scene, visible=night, target=target, clean=False)


def load_groups(
    sources: Sequence[Source], height: int, width: int, names: Sequence[str] = CLASSES
) -> Groups:
    """Load the training splits of some sets: one group for each set and condition in it.

    A set that is given several times is loaded once. Up to IN_MEMORY scenes are decoded now; if
    there are more, each is decoded when it is drawn. `names`: see `Scenes`.

    Raises:
        DataError: for an incomplete or damaged set.
    """
    sets = {
        s: Scenes(dataset(s.kind), s.root, s.training_split, height, width, names) for s in sources
    }
    in_memory = sum(map(len, sets.values())) <= IN_MEMORY
    made = {source: _groups(scenes, in_memory) for source, scenes in sets.items()}
    return [group for source in sources for group in made[source]]


def _groups(scenes: Scenes, in_memory: bool) -> Groups:
    paired = [False for _ in CONDITIONS]
    labelled = [False for _ in CONDITIONS]
    members: list[list[Scene]] = [[] for _ in CONDITIONS]
    places: list[list[tuple[Scenes, int]]] = [[] for _ in CONDITIONS]
    if in_memory:
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            for scene in pool.map(scenes.__getitem__, range(len(scenes))):
                condition = _condition(scene.thermal is not None, scene.clean)
                members[condition].append(scene)
                paired[condition] |= scene.thermal is not None
                labelled[condition] |= scene.teacher is not None
                labelled[condition] |= bool((scene.label != IGNORE).any())
    else:
        for i, record in enumerate(scenes.records):
            condition = _condition(record.thermal is not None, scenes.is_clean(i))
            places[condition].append((scenes, i))
            paired[condition] |= record.thermal is not None
            labelled[condition] |= any((record.label, record.coarse, record.teacher))
    lists: list[Sequence[Scene]] = [*members] if in_memory else [_Lazy(some) for some in places]
    return [
        Group(condition, some, paired[condition], labelled[condition])
        for condition, some in enumerate(lists)
        if len(some)
    ]


def _condition(paired: bool, clean: bool) -> int:
    if not clean:
        return 2
    return 1 if paired else 0


def shares(groups: Groups, by_condition: Sequence[float]) -> list[float]:
    """Return how often each group is drawn, from how often each condition is; not normalised."""
    roots = [len(group.scenes) ** 0.5 for group in groups]
    totals = [
        sum(r for r, g in zip(roots, groups, strict=True) if g.condition == c)
        for c in range(len(CONDITIONS))
    ]
    return [
        by_condition[g.condition] * root / totals[g.condition]
        for g, root in zip(groups, roots, strict=True)
    ]


def with_made_nights(
    groups: Groups, weights: Sequence[float], night: float, count: float, seed: int
) -> tuple[Groups, list[float]]:
    """Add a group of day scenes made night; return all groups and how often each is drawn.

    `Crops` makes night from crops, but the device has no code for that. Here whole scenes are made
    night. They are drawn as often as `Crops` makes night: their weight is taken from the groups
    that they come from. Scenes with too few labelled pixels stay day scenes.

    Args:
        groups: the groups.
        weights: how often each is drawn.
        night: share of the crops of labelled day scenes without a thermal image that become night.
        count: number of scenes to make, as a share of those day scenes.
        seed: of all draws.
    """
    by_day = CONDITIONS.index("by day without a thermal image")
    from_day = [w if g.condition == by_day else 0.0 for g, w in zip(groups, weights, strict=True)]
    if not night or not sum(from_day):
        return groups, list(weights)
    drawn, made = np.zeros((2, len(groups)))
    places: list[tuple[Sequence[Scene], int]] = []
    rng = np.random.default_rng(seed)
    probabilities = np.array(from_day) / sum(from_day)
    scenes_by_day = sum(len(g.scenes) for g, w in zip(groups, from_day, strict=True) if w)
    for _ in range(round(count * scenes_by_day)):
        number = int(rng.choice(len(groups), p=probabilities))
        scenes = groups[number].scenes
        scene = scenes[i := int(rng.integers(len(scenes)))]
        drawn[number] += 1
        if (known_classes(scene.label, scene.teacher) != IGNORE).mean() > LABELLED:
            made[number] += 1
            places.append((scenes, i))
    if not places:
        return groups, list(weights)
    moved = night * np.array(from_day) * made / np.maximum(drawn, 1)
    nights = Group(CONDITIONS.index("at night"), _MadeNights(places, seed), paired=False)
    return [*groups, nights], [*(np.array(weights) - moved).tolist(), float(moved.sum())]


def load_held_out(
    sources: Sequence[Source], height: int, width: int, count: int, names: Sequence[str] = CLASSES
) -> list[Scene]:
    """Load a few scenes of every set for pictures: held-out ones if the set has such a split."""
    some: list[Scene] = []
    for source in sources:
        split = source.held_out_split or source.training_split
        scenes = Scenes(dataset(source.kind), source.root, split, height, width, names)
        step = max(1, len(scenes) // count)
        some.extend(scenes[i] for i in range(0, len(scenes), step)[:count])
    return some
