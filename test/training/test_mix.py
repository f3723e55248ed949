# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Data sets on the command line, and the groups from which stages draw."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from test_run_folder import write_data

from magicfuse_training.data import mix
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.mix import Group, Groups, Source, load_groups, shares, with_made_nights
from magicfuse_training.data.scenes import Scene
from magicfuse_training.errors import TrainingError
from magicfuse_training.stages.runner import group_weights
from magicfuse_training.stages.stages import STAGES


def sources(root: Path) -> list[Source]:
    write_data(root)
    return [Source.parse(f"{k}-repacked:{root / k}") for k in ("camvid", "msrs")]


def test_scenes_are_grouped_alike_in_memory_and_when_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = sources(tmp_path)
    read = load_groups(some, 64, 96)
    monkeypatch.setattr(mix, "IN_MEMORY", 0)
    lazy = load_groups(some, 64, 96)
    assert names(read) == [(0, ["1D", "2N"]), (1, ["1D"]), (2, ["2N"])]
    assert names(lazy) == names(read)
    assert np.array_equal(lazy[0].scenes[1].visible, read[0].scenes[1].visible)
    assert [s.name for s in lazy[0].scenes[:1]] == ["1D"]


def test_a_set_that_is_given_again_is_read_once_and_drawn_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camvid, msrs = sources(tmp_path)
    monkeypatch.setattr(mix, "IN_MEMORY", 4)
    once = load_groups([camvid, msrs], 64, 96)
    more = load_groups([camvid, camvid, msrs, camvid], 64, 96)
    assert names(more) == [names(once)[i] for i in (0, 0, 1, 2, 0)]
    assert more[0].scenes is more[1].scenes is more[-1].scenes
    assert isinstance(more[0].scenes, list), "decoded already"


@pytest.mark.parametrize(
    ("splits", "trained"),
    [
        (["train", "day"], "train"),
        (["training", "test"], "training"),
        (["."], "."),
        (["val"], None),
        (["day", "night"], None),
    ],
)
def test_the_split_to_train_on_is_never_one_that_is_held_out(
    tmp_path: Path, splits: list[str], trained: str | None
) -> None:
    for split in splits:
        (tmp_path / split / "vi").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / split / "vi" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    source = Source("folder", tmp_path)
    if trained is not None:
        assert source.training_split == trained
    else:
        with pytest.raises(DataError, match=f"has the splits {', '.join(splits)}; expected"):
            _ = source.training_split


def names(groups: Groups) -> list[tuple[int, list[str]]]:
    return [(g.condition, [s.name for s in g.scenes]) for g in groups]


def test_sets_of_one_condition_are_drawn_by_the_square_root_of_their_size(tmp_path: Path) -> None:
    (group, *_) = load_groups(sources(tmp_path)[:1], 64, 96)
    many, few, night = (
        Group(c, list(group.scenes[:1]) * n, False) for c, n in ((0, 9), (0, 1), (2, 4))
    )
    assert shares([many, few, night], [0.8, 0.1, 0.2]) == pytest.approx([0.6, 0.2, 0.2])


def test_labelled_days_are_made_night_for_a_device_as_often_as_elsewhere() -> None:
    image = np.full((32, 48, 3), 150, np.uint8)
    nobody = np.zeros((0, 4), np.float32)
    labelled = np.repeat([[0], [3]], 16, 0).repeat(48, 1).astype(np.uint8)  # sky, road
    scenes = [
        Scene("a", image, image, True, None, label, nobody)
        for label in (labelled, np.full_like(labelled, 255))
    ]
    groups = [
        Group(0, scenes[:1] * 4, False),
        Group(0, scenes[1:], False),  # without labels: it stays day
        Group(1, scenes[:1] * 4, True),
        Group(2, scenes, True),
    ]
    weights = [0.4, 0.1, 0.2, 0.3]
    (*same, night), found = with_made_nights(groups, weights, 0.25, 2.0, 0)
    assert same == groups and night.condition == 2 and len(night.scenes) > 4
    # A quarter of the day crops, and all other shares as they were.
    assert found == pytest.approx([0.3, 0.1, 0.2, 0.3, 0.1])
    for unchanged in ([0.0, 0.0, 0.45, 0.55], [0.0, 1.0, 0.0, 0.0]):
        assert with_made_nights(groups, unchanged, 0.25, 2.0, 0) == (groups, unchanged)
    scene = night.scenes[0]
    assert np.array_equal(scene.visible, night.scenes[:1][0].visible)
    assert not scene.clean and scene.visible.mean() < 100 and (scene.target != scene.visible).any()
    assert np.array_equal(scene.label, labelled)


def test_a_stage_that_finds_nothing_to_learn_from_says_so(tmp_path: Path) -> None:
    groups = load_groups(sources(tmp_path)[:1], 64, 96)
    assert group_weights(STAGES["ikr"], groups) == [0.6]
    wanted = r"stage 'ckg' .*by day with one or at night.*holds 2 by day without"
    with pytest.raises(TrainingError, match=wanted):
        group_weights(STAGES["ckg"], groups)


def test_nights_without_a_thermal_image_teach_ckg_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, level in (("day/train/vi", 200), ("day/train/ir", 200), ("night/train/vi", 9)):
        (tmp_path / place).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / place / "a.png"), np.full((8, 8, 3), level, np.uint8))
    some = [Source("folder", tmp_path / name) for name in ("day", "night")]
    for in_memory in (10, 0):
        monkeypatch.setattr(mix, "IN_MEMORY", in_memory)
        day, night = load_groups(some, 64, 96)
        assert (day.paired, night.paired) == (True, False)
        assert group_weights(STAGES["ckg"], [day, night]) == [0.45, 0.0]
        assert group_weights(STAGES["ikr"], [day, night]) == [0.4, 0.0]
        wanted = r"with one or at night, if they have a thermal image; .* 1 at night"
        with pytest.raises(TrainingError, match=wanted):
            group_weights(STAGES["ckg"], [night])


def test_scenes_without_a_label_teach_masks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, level in (("with/train/vi", 200), ("with/train/label", 3), ("without/train/vi", 90)):
        (tmp_path / place).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / place / "a.png"), np.full((8, 8, 3), level, np.uint8))
    some = [Source("folder", tmp_path / name) for name in ("with", "without")]
    for in_memory in (10, 0):
        monkeypatch.setattr(mix, "IN_MEMORY", in_memory)
        labelled, unlabelled = load_groups(some, 64, 96)
        assert group_weights(STAGES["masks"], [labelled, unlabelled]) == [0.74, 0.0]
        assert group_weights(STAGES["few_step"], [labelled, unlabelled]) == [0.31, 0.31]
        with pytest.raises(TrainingError, match=r"at night, if they have a label; .* 1 by day"):
            group_weights(STAGES["masks"], [unlabelled])


@pytest.mark.parametrize("text", ["pairs", "folder:", "foldr:pairs"])
def test_data_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"folder.*camvid"):
        Source.parse(text)
