"""Data sets on the command line, and the groups that stages draw from."""

from pathlib import Path

import numpy as np
import pytest
from test_run_folder import write_data

from magicfuse_training.data import mix
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.mix import Source, load_groups
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
    assert [[s.name for s in g] for g in read] == [["1D", "2N"], ["1D"], ["2N"]]
    assert [[s.name for s in g] for g in lazy] == [[s.name for s in g] for g in read]
    assert np.array_equal(lazy[0][1].visible, read[0][1].visible)
    assert [s.name for s in lazy[0][:1]] == ["1D"]


def test_a_stage_that_finds_nothing_to_learn_from_says_so(tmp_path: Path) -> None:
    groups = load_groups(sources(tmp_path)[:1], 64, 96)
    assert group_weights(STAGES["ikr"], groups) == [0.6, 0.0, 0.0]
    with pytest.raises(TrainingError, match=r"stage 'ckg' .* with one, by day .*holds 2 without"):
        group_weights(STAGES["ckg"], groups)


@pytest.mark.parametrize("text", ["pairs", "folder:", "foldr:pairs"])
def test_data_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"folder.*camvid"):
        Source.parse(text)
