# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The frames of a recording that an adaptation keeps, and their labels from a bundle."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import BundleError
from magicfuse_ros.fuser import FusedFrame, Fuser
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media import Frame, Refusal, open_source
from magicfuse_training.adaptation import labels
from magicfuse_training.adaptation.config import AdaptConfig
from magicfuse_training.adaptation.frames import (
    Chosen,
    Selection,
    alike,
    collect,
    held_out_of,
    kept_selection,
    thumbnail,
)
from magicfuse_training.adaptation.labels import label_frames, pseudo_label
from magicfuse_training.adaptation.run import labelled
from magicfuse_training.data.files import read_image
from magicfuse_training.errors import TrainingError
from magicfuse_training.stages.runner import Budget
from media_files import SECOND, image_message, picture, write_bag, write_picture, write_video

SIZE = (48, 64)
CONFIG = AdaptConfig(least=10, least_held_out=3)


class Images:
    """A source of images in memory."""

    name, frame_rate = "memory", None

    def __init__(self, images: Sequence[Pixels]) -> None:
        self.images = images
        self.refused: list[Refusal] = []

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(image, str(i), 0) for i, image in enumerate(self.images))


def pictures(count: int) -> list[Pixels]:
    return [picture(seed=i) for i in range(count)]


def numbers(images: Sequence[Pixels], limit: int = 1200) -> list[int]:
    return [number for number, _ in Chosen(Images(images), limit)]


def kept(split: Path) -> list[str]:
    return sorted(path.stem for path in (split / "vi").iterdir())


def recording(kind: str, folder: Path) -> Path:
    if kind == "video":
        return write_video(folder / "drive.mp4", range(20))
    if kind == "bag":
        messages = [
            ("/camera/image_raw", i * SECOND // 10, image_message(image, i * SECOND // 10))
            for i, image in enumerate(pictures(20))
        ]
        return write_bag(folder / "bag", messages)
    (folder / "pictures").mkdir()
    for i, image in enumerate(pictures(20)):
        write_picture(folder / "pictures" / f"frame{i}.png", image)
    return folder / "pictures"


@pytest.mark.parametrize("kind", ["pictures", "video", "bag"])
def test_the_last_frames_of_any_recording_are_held_out(kind: str, tmp_path: Path) -> None:
    collect(open_source(recording(kind, tmp_path)), tmp_path / "data", SIZE, CONFIG)
    assert kept(tmp_path / "data" / "train") == [f"{i:06d}" for i in range(16)]
    assert kept(tmp_path / "data" / "dev") == [f"{i:06d}" for i in range(17, 20)]
    beside = {"beside a held-out frame": 1}
    assert kept_selection(tmp_path / "data") == Selection(20, 16, 3, beside, 0)
    stored = read_image(tmp_path / "data" / "train" / "vi" / "000012.png")
    assert np.abs(stored.astype(int) - picture(seed=12)).mean() < (4 if kind == "video" else 0.01)


def test_a_drive_into_the_night_is_judged_by_day_and_at_night(tmp_path: Path) -> None:
    by_day = pictures(20)
    night = [image // 8 for image in pictures(12)]
    collect(Images([*by_day, *night]), tmp_path / "data", SIZE, CONFIG)
    assert [*map(int, kept(tmp_path / "data" / "dev"))] == [16, 17, 18, 19, 30, 31]
    # No neighbour of a held-out frame is trained on: it may show the same place.
    assert [*map(int, kept(tmp_path / "data" / "train"))] == [*range(15), *range(21, 29)]
    assert held_out_of([False, True] * 20, CONFIG) == set(range(34, 40))
    assert held_out_of([True] + [False] * 39, CONFIG) == {0, *range(34, 40)}


def test_a_standing_car_gives_one_frame_by_day_and_at_night() -> None:
    rng = np.random.default_rng(0)
    for gain in (1.0, 0.12):
        drive = [(image * gain).astype(np.uint8) for image in pictures(4)]
        noise = [rng.integers(0, 3, drive[1].shape, np.uint8) for _ in range(5)]
        standing = [np.minimum(drive[1], 252) + n for n in noise]
        assert numbers([drive[0], *standing, drive[2], drive[3]]) == [0, 1, 6, 7]
        blocks = (rng.integers(0, 256, (12, 16, 3), np.uint8) * gain).astype(np.uint8)
        road = cv2.resize(blocks, (480, 360), interpolation=cv2.INTER_NEAREST)
        assert not alike(thumbnail(road[:, 4:]), thumbnail(road[:, :-4]))


def test_a_long_recording_is_thinned_evenly_and_keeps_its_order() -> None:
    assert numbers(pictures(10), limit=5) == [0, 2, 4, 6, 8]
    black = np.zeros_like(picture())
    images = pictures(12)
    images[0] = images[4] = images[5] = images[6] = images[7] = black
    # A part without a usable frame stays empty; its neighbours keep no extra frames.
    assert numbers(images, limit=3) == [1, 8]


def test_black_saturated_and_blurred_frames_are_left_out() -> None:
    rng = np.random.default_rng(0)
    sharp = [rng.integers(0, 2, (8, 12, 3), np.uint8) * 120 + 60 for _ in range(2)]
    sharp = [cv2.resize(s, (320, 240), interpolation=cv2.INTER_NEAREST) for s in sharp]
    blurred = cv2.GaussianBlur(sharp[1], (0, 0), 6)
    images = [np.zeros_like(blurred), sharp[0], np.full_like(blurred, 255), blurred, sharp[1]]
    chosen = Chosen(Images(images), 100)
    assert [number for number, _ in chosen] == [1, 4]
    assert dict(chosen.left_out) == {"black": 1, "saturated": 1, "blurred": 1}


def test_too_few_frames_are_refused_with_their_number_and_leave_nothing(tmp_path: Path) -> None:
    images = [*pictures(8), np.zeros_like(picture()), picture(seed=8), picture(seed=8)]
    message = "'memory' holds 9 usable frames of 11; expected at least 10"
    with pytest.raises(TrainingError, match=re.escape(message)) as error:
        collect(Images(images), tmp_path / "data", SIZE, CONFIG)
    assert "left out: 1 black, 1 alike" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_kept_no_larger_than_the_networks_see_them(tmp_path: Path) -> None:
    large = [picture(100, 160, seed=i) for i in range(6)]
    collect(Images([*large, *pictures(6)]), tmp_path / "data", (48, 96), CONFIG)
    kept = tmp_path / "data" / "train" / "vi"
    assert read_image(kept / "000000.png").shape == (48, 77, 3)
    assert read_image(kept / "000007.png").shape == (48, 64, 3)


def test_what_a_killed_run_left_of_the_frames_is_no_data_set(tmp_path: Path) -> None:
    stale = tmp_path / "data.partial" / "train" / "vi" / "000999.png"
    stale.parent.mkdir(parents=True)
    write_picture(stale, picture())
    collect(Images(pictures(12)), tmp_path / "data", SIZE, CONFIG)
    assert len(list((tmp_path / "data").rglob("*.png"))) == 11
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_label_is_a_confident_class_that_the_mirrored_frame_has_too() -> None:
    image = np.zeros((1, 4, 3), np.uint8)
    image[0, 0] = 200  # distinguishes the frame from its mirror image
    confidence = np.array([[217, 216, 255, 255]], np.uint8)

    def fuse(seen: Pixels) -> FusedFrame:
        mirrored = seen[0, 0, 0] == 0
        mask = np.array([[7, 2, 3, 3] if mirrored else [3, 3, 5, 7]], np.uint8)
        values = confidence[:, ::-1] * 0 if mirrored else confidence
        return FusedFrame(None, None, None, None, mask, values, 1, {})

    # The first is just confident enough, the second is not, the third changes class when mirrored.
    assert pseudo_label(fuse, image, 0.85).tolist() == [[3, 255, 255, 7]]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Folder of a split with three frames; the first has a label from an earlier start."""
    for name, image in zip("abc", pictures(3), strict=True):
        (tmp_path / "vi").mkdir(exist_ok=True)
        write_picture(tmp_path / "vi" / f"{name}.png", image)
    (tmp_path / "label").mkdir()
    write_picture(tmp_path / "label" / "a.png", np.full((48, 64, 3), 9, np.uint8))
    return tmp_path


def test_labelling_goes_on_where_it_stopped(frames: Path, tiny_bundle: Path) -> None:
    label_frames(tiny_bundle, "onnxruntime", frames, 0.4)
    made = {p.stem: read_image(p, gray=True) for p in (frames / "label").glob("*.png")}
    assert set(made) == set("abc") and (made["a"] == 9).all()
    fuser = Fuser(Bundle.load(tiny_bundle), select("onnxruntime"))
    np.testing.assert_array_equal(made["c"], pseudo_label(fuser, picture(seed=2), 0.4))
    assert 0 < (made["c"] != 255).mean() < 1


def test_labels_are_made_in_another_process_where_training_will_fork(
    frames: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "select", None)  # in this process
    bundle, config = Bundle.load(tiny_bundle), AdaptConfig(confident=0.4)
    with pytest.raises(TypeError):
        labelled(bundle, frames, "onnxruntime", config, Budget(steps=1, workers=0))
    share = labelled(bundle, frames, "onnxruntime", config, Budget(steps=1, workers=1))
    assert 0.3 < share < 1 and len(list((frames / "label").glob("*.png"))) == 3
    (frames / "label" / "b.png").unlink()
    with pytest.raises(BundleError, match="nowhere"):
        lost = Bundle(frames / "nowhere", bundle.manifest)
        labelled(lost, frames, "onnxruntime", config, Budget(steps=1, workers=1))


def test_a_bundle_that_is_sure_of_nothing_has_nothing_to_teach(
    frames: Path, tiny_bundle: Path
) -> None:
    (frames / "label" / "a.png").unlink()
    config = AdaptConfig(confident=1.01)
    message = r"sure of 0\.0% of the recording's pixels; expected at least 5%"
    with pytest.raises(TrainingError, match=message):
        labelled(
            Bundle.load(tiny_bundle), frames, "onnxruntime", config, Budget(steps=1, workers=0)
        )
