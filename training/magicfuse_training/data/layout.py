# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The file layout of a data set: a declaration, and the one reader that walks it.

A path is a template like "leftImg8bit/{split}/{city}/{name}_leftImg8bit.png". Each field in braces
matches one folder or file name (or a part of it). A scene is named by its fields other than the
split, joined by "/". A template that ends in ".*" accepts any picture suffix. File names match in
upper and lower case alike: a camera's .JPG is a .jpg.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from magicfuse_ros.media.pictures import PICTURE_SUFFIXES
from magicfuse_training.data.classes import BoxMap, LabelMap
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.scene_list import read_scene_list

Part = Literal["visible", "thermal", "label", "coarse", "teacher", "boxes"]
PARTS: tuple[Part, ...] = get_args(Part)
_SHOWN = 3


@dataclass(frozen=True)
class Record:
    """The files of one scene.

    `coarse` is a hand-drawn label with the project's ids; it fills in the pixels that `label`
    leaves unknown. `teacher` is a label that another network made.
    """

    name: str
    visible: Path
    thermal: Path | None = None
    label: Path | None = None
    coarse: Path | None = None
    teacher: Path | None = None
    boxes: Path | None = None


@dataclass(frozen=True)
class Index:
    """The files found for one split: each part by scene, and what does not fit."""

    names: list[str]  # scenes that the split should have
    files: dict[Part, dict[str, Path]]  # without parts that the set lacks or omits
    missing: dict[Part, list[str]]
    orphans: dict[Part, list[str]]  # files without a visible image

    def record(self, name: str) -> Record:
        """Return the files of a scene."""
        files = {part: there[name] for part, there in self.files.items() if name in there}
        return Record(name, **files)


@dataclass(frozen=True)
class DataSet:
    """The declaration of a data set.

    kind: its name on the command line.
    source: where the layout is published.
    templates: path of each part, relative to the root.
    labels: content of the label images.
    boxes: meaning of the names in the box files.
    splits: their names; if empty, every folder that holds visible images is a split, and the root
        is ".".
    members: for each split, a pattern that its scene names match, if folders do not tell.
    list_file: template of a text file with the scene names of a split, one per line.
    optional: parts that may be missing entirely.
    partial: parts that only some scenes have.
    thermal_in_alpha: the thermal image is the fourth channel of its file.
    auto_gain: the thermal camera set level and gain for every image.
    width_factor: factor on the stored width that gives square pixels.
    night: tells a night scene by its name; or the mean luma, 0 to 255, of an image's upper third,
        below which the scene is a night scene.
    terms: what its licence means for weights trained on it.
    taken_from: kinds of the published set whose frames a repacked set has, and the split that
        they are from; "": the one of the same name, "*": several.
    """

    kind: str
    source: str
    templates: Mapping[Part, str]
    labels: LabelMap | None = None
    boxes: BoxMap = field(default_factory=dict)
    splits: tuple[str, ...] = ("all",)
    members: Mapping[str, str] = field(default_factory=dict)
    list_file: str | None = None
    optional: frozenset[Part] = frozenset({"boxes"})
    partial: frozenset[Part] = frozenset()
    thermal_in_alpha: bool = False
    auto_gain: bool = False
    width_factor: int = 1
    terms: str = "those of its source"
    taken_from: Mapping[str, str] = field(default_factory=dict)
    night: Callable[[str], bool] | float = 45.0  # right for 99 % of MSRS's days, 97 % of its nights

    def splits_in(self, root: Path) -> list[str]:
        """Return the names of the splits; also those on disk if the set leaves them to the user.

        Raises:
            DataError: if the root is not a folder.
        """
        if not root.is_dir():
            raise DataError(f"data folder '{root}' does not exist")
        if self.splits:
            return list(self.splits)
        inside = PurePosixPath(self.templates["visible"]).relative_to("{split}").parent
        found = [".", *sorted(p.name for p in root.iterdir() if p.is_dir())]
        return [split for split in found if (root / split / inside).is_dir()]

    def index(self, root: Path, split: str) -> Index:
        """Find the files of a split.

        Raises:
            DataError: for an unknown split, a missing list of scenes, or a scene with two files.
        """
        known = self.splits_in(root)
        if not known:
            inside = PurePosixPath(self.templates["visible"]).relative_to("{split}")
            raise DataError(
                f"'{root}' holds no folder '{inside.parent}' with pictures, neither itself nor in "
                f"one folder a split; expected '{root / inside}' or '{root / 'train' / inside}', "
                f"as a data set of the kind {self.kind} has it"
            )
        if split not in known:
            raise DataError(
                f"split is '{split}'; '{root}' as {self.kind} has {', '.join(known) or 'none'}"
            )
        found = {part: find_files(root, t, split) for part, t in self.templates.items()}
        names = self._names(root, split, found["visible"])
        missing: dict[Part, list[str]] = {}
        orphans: dict[Part, list[str]] = {}
        files: dict[Part, dict[str, Path]] = {}
        for part, there in found.items():
            may_lack = part in self.optional | self.partial
            if may_lack and not there and not self._beside(root, split, part):
                continue
            files[part] = {name: there[name] for name in names if name in there}
            lacking = [name for name in names if name not in there]
            missing[part] = [] if part in self.partial and there else lacking
            # A part whose folder holds all splits also contains files of the other splits.
            if ("{split}" in self.templates[part]) == ("{split}" in self.templates["visible"]):
                alone = there.keys() - found["visible"].keys()
                orphans[part] = sorted(filter(self._pattern(split).match, alone))
        return Index(names, files, missing, orphans)

    def left_out(self, root: Path, split: str) -> list[Path]:
        """Return the files and folders beside a split's files that belong to no part."""
        found = [find_files(root, template, split) for template in self.templates.values()]
        taken = {path for files in found for path in files.values()}
        beside = {path for part in self.templates for path in self._beside(root, split, part)}
        if not self.splits:  # users' own folders: a typo in a name is easily overlooked
            known = {PurePosixPath(t).parts[1] for t in self.templates.values()}
            others = set() if split != "." else set(self.splits_in(root))
            beside |= {
                path
                for path in _visible(root / split)
                if path.is_dir() and path.name not in known | others
            }
        return sorted(beside - taken)

    def _beside(self, root: Path, split: str, part: Part) -> list[Path]:
        """Return everything in the folders of a part."""
        template = self.templates[part].replace("{split}", glob.escape(split))
        folder = re.sub(r"{\w+}", "*", str(PurePosixPath(template).parent))
        return [path for found in root.glob(folder) for path in _visible(found)]

    def _names(self, root: Path, split: str, visible: Mapping[str, Path]) -> list[str]:
        if self.list_file is not None:
            return read_scene_list(root / self.list_file.format(split=split))
        return sorted(filter(self._pattern(split).match, visible))

    def _pattern(self, split: str) -> re.Pattern[str]:
        return re.compile(self.members.get(split, ""))

    def records(self, root: Path, split: str) -> list[Record]:
        """Return the scenes of a split, ordered by name.

        Raises:
            DataError: if there is none, or if files are missing; names the first ones.
        """
        index = self.index(root, split)
        if not index.names:
            of_split = "" if split in (".", "all") else f" of split '{split}'"
            expected = PurePosixPath(self.templates["visible"].replace("{split}", split))
            raise DataError(
                f"'{root}' holds no scene{of_split} of {self.kind}; expected {expected}"
            )
        for part, names in index.missing.items():
            if names:
                raise DataError(
                    f"{len(names)} {part} files of {self.kind} '{split}' are missing in '{root}': "
                    f"{self.expected(part, split, names)}"
                )
        return [index.record(name) for name in index.names]

    def expected(self, part: Part, split: str, names: list[str]) -> str:
        """Return the paths, relative to the root, of a part in the first few of some scenes."""
        template = self.templates[part]
        fields = [f for f in re.findall(r"{(\w+)}", template) if f != "split"]
        shown = []
        for name in names[:_SHOWN]:
            values = dict(zip(fields, name.split("/"), strict=True))
            shown.append(str(PurePosixPath(template.format(split=split, **values))))
        return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def find_files(root: Path, template: str, split: str) -> dict[str, Path]:
    """Return the files of a template in one split, by scene name.

    Raises:
        DataError: if two files belong to the same scene.
    """
    path = str(PurePosixPath(template.replace("{split}", split)))
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
    if path.endswith(".*"):
        suffixes = "|".join(re.escape(s) for s in PICTURE_SUFFIXES)
        pattern = pattern.removesuffix(re.escape(".*")) + f"(?:{suffixes})"
    expression = re.compile(pattern, re.IGNORECASE)
    found: dict[str, Path] = {}
    searched = str(PurePosixPath(template.replace("{split}", glob.escape(split))))
    *folders, name = re.sub(r"{\w+}", "*", searched).split("/")
    any_case = re.sub("[a-zA-Z]", lambda c: f"[{c[0].lower()}{c[0].upper()}]", name)
    for file in root.glob("/".join([*folders, any_case])):
        match = expression.fullmatch(file.relative_to(root).as_posix())
        if match is None or file.name.startswith("."):
            continue
        scene = "/".join(match.groups())
        if scene in found:
            raise DataError(f"'{file}' and '{found[scene].name}' are of the same scene")
        found[scene] = file
    return found
