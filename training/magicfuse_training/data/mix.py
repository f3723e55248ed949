"""What a run is trained on: one or several data sets, in the groups that stages weigh."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from magicfuse_training.data.classes import CLASSES
from magicfuse_training.data.datasets import DATASETS, dataset
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.scenes import Scene, Scenes

HELD_OUT = ("val", "dev", "test")
IN_MEMORY = 1500  # scenes; at 480x640 that is 3.5 GB, and decoding anew would take a core
GROUPS = ("without a thermal image", "with one, by day", "with one, at night")
Groups = list[Sequence[Scene]]  # in the order of GROUPS


@dataclass(frozen=True)
class Source:
    """A data set on this machine."""

    kind: str
    root: Path

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read "KIND:ROOT".

        Raises:
            DataError: for another form, or an unknown kind.
        """
        kind, colon, root = text.partition(":")
        if not colon or not root:
            raise DataError(
                f"data is '{text}'; expected KIND:ROOT, as in 'folder:my_images', "
                f"with KIND one of {', '.join(DATASETS)}"
            )
        dataset(kind)
        return cls(kind, Path(root).expanduser())

    @property
    def training_split(self) -> str:
        """The split to train on: "train" where there is one, else all of the set."""
        splits = dataset(self.kind).splits_in(self.root)
        return "train" if "train" in splits else next(iter(splits), "train")

    @property
    def held_out_split(self) -> str | None:
        """The split to look at during training, if there is one."""
        splits = dataset(self.kind).splits_in(self.root)
        return next((name for name in HELD_OUT if name in splits), None)

    def folder(self, split: str) -> Path:
        """Return the folder of a split, or the root where a set has no such folder."""
        inside = self.root / split
        return inside if inside.is_dir() else self.root


@dataclass(frozen=True)
class Trained:
    """What a run was trained on, as its folder and the bundle tell it."""

    data: list[str]
    terms: str


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
    """Scenes of several sets, each read when it is asked for."""

    def __init__(self, places: list[tuple[Scenes, int]]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        if isinstance(index, slice):
            return [scenes[i] for scenes, i in self.places[index]]
        scenes, i = self.places[index]
        return scenes[i]


def load_groups(
    sources: Sequence[Source], height: int, width: int, names: Sequence[str] = CLASSES
) -> Groups:
    """Load the training splits of some sets in the three groups of GROUPS.

    Up to IN_MEMORY scenes are decoded now, more than that whenever they are drawn. `names`: see
    `Scenes`.

    Raises:
        DataError: for a set that is incomplete or damaged.
    """
    sets = [
        Scenes(dataset(s.kind), s.root, s.training_split, height, width, names) for s in sources
    ]
    if sum(map(len, sets)) <= IN_MEMORY:
        read: list[list[Scene]] = [[], [], []]
        with ThreadPoolExecutor() as pool:  # decoding leaves the interpreter to others
            for scenes in sets:
                for scene in pool.map(scenes.__getitem__, range(len(scenes))):
                    read[_group(scene.thermal is not None, scene.clean)].append(scene)
        return list(read)
    places: list[list[tuple[Scenes, int]]] = [[], [], []]
    for scenes in sets:
        for i, record in enumerate(scenes.records):
            paired = record.thermal is not None
            # Whether it is night may need the image, and matters to pairs only.
            places[_group(paired, not paired or scenes.is_clean(i))].append((scenes, i))
    return [_Lazy(group) for group in places]


def _group(paired: bool, clean: bool) -> int:
    if not paired:
        return 0
    return 1 if clean else 2


def load_held_out(
    sources: Sequence[Source], height: int, width: int, count: int, names: Sequence[str] = CLASSES
) -> list[Scene]:
    """Load a few scenes of every set to look at: held-out ones where the set has such a split."""
    some: list[Scene] = []
    for source in sources:
        split = source.held_out_split or source.training_split
        scenes = Scenes(dataset(source.kind), source.root, split, height, width, names)
        step = max(1, len(scenes) // count)
        some.extend(scenes[i] for i in range(0, len(scenes), step)[:count])
    return some
