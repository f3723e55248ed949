# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Crops made on the device have the same effects and the same batches as crops from processes."""

from collections.abc import Sequence
from itertools import islice
from typing import Any
from weakref import ref

import cv2
import numpy as np
import pytest
import torch

from magicfuse_training.data import device_effects
from magicfuse_training.data.crop_draws import CropConfig
from magicfuse_training.data.device_crops import DeviceCrops
from magicfuse_training.data.device_degradations import degrade_batch
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.scenes import Scene
from magicfuse_training.degradations import (
    Darkness,
    DefocusBlur,
    Effect,
    Fog,
    Haze,
    Jpeg,
    MotionBlur,
    Rain,
    apply,
)
from magicfuse_training.stages.accelerator import make_accelerator
from magicfuse_training.stages.loading import load_parts
from magicfuse_training.stages.preparation import AT_ONCE, _Batches

CPU = torch.device("cpu")
SIZE = (240, 320)  # of the scenes


def picture(height: int = 96, width: int = 128) -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (8, 10, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def codes(image: torch.Tensor) -> np.ndarray:
    return np.asarray((image[0].permute(1, 2, 0) * 255).round().numpy(), np.float64)


def values(effect: Effect, *names: str) -> list[torch.Tensor]:
    return [torch.tensor([getattr(effect, n)], dtype=torch.float32) for n in names]


def by_library(effect: Effect, image: np.ndarray, rows: tuple[float, float]) -> np.ndarray:
    return effect.apply(image, np.random.default_rng(0), rows).astype(np.float64)


def test_darkness_is_the_camera_models_and_so_is_its_noise() -> None:
    image = picture()
    pools = ((0.5, -1.0, 0.2), (1.0, 0.0, -0.5), (0.1, 0.3, 0.9))
    effect = Darkness(
        stops=3, gain=2, full_well=5000, read_noise=3, cast=(1.1, 1.0, 0.9), light_stops=pools
    )
    parameters = values(effect, "stops", "gain", "full_well", "read_noise", "cast")
    light = device_effects.enlarged(torch.tensor([pools]), *image.shape[:2])
    quiet = device_effects.darkness(tensor(image), light, *parameters, None)
    noisy = device_effects.darkness(
        tensor(image), light, *parameters, torch.Generator().manual_seed(1)
    )
    theirs = by_library(effect, image, (0, 1))
    free = effect.model_copy(update={"read_noise": 0.0, "full_well": 1e9, "stops": 3.0})
    assert np.abs(codes(quiet) - by_library(free, image, (0, 1))).max() <= 1.0
    ours, real = codes(noisy) - codes(quiet), theirs - codes(quiet)
    assert np.std(ours) == pytest.approx(np.std(real), rel=0.05)


def test_haze_is_the_weather_models() -> None:
    image, rows = picture(), (0.2, 0.9)
    effect = Haze.draw(0.6, np.random.default_rng(4))
    drifts = device_effects.enlarged(torch.tensor([effect.drifts]), *image.shape[:2])
    parameters = values(effect, "density", "airlight", "horizon")
    ours = device_effects.haze(tensor(image), drifts, *parameters, torch.tensor([rows]))
    assert np.abs(codes(ours) - by_library(effect, image, rows)).max() <= 1.0


@pytest.mark.parametrize("kind", [Fog, Rain])
def test_fog_and_rain_are_the_weather_models(kind: type[Fog | Rain]) -> None:
    image, rows = picture(), (0.2, 0.9)
    effect = kind.draw(0.6, np.random.default_rng(4))
    rng = np.random.default_rng(0)
    ours = degrade_batch(tensor(image), [[effect]], np.array([rows]), rng)
    assert np.abs(codes(ours) - by_library(effect, image, rows)).max() <= 1.0


def test_every_crop_of_a_batch_gets_its_own_effects_in_the_physical_order() -> None:
    image, whole = picture(), (0.0, 1.0)
    haze = Haze.draw(0.6, np.random.default_rng(4))
    effects: list[list[Effect]] = [
        [Jpeg(quality=60), Fog(visibility_m=60)], [], [MotionBlur(reach_px=5, angle=0.6), haze],
    ]  # fmt: skip
    batch = tensor(image).repeat(3, 1, 1, 1)
    ours = degrade_batch(batch, effects, np.array([whole] * 3), np.random.default_rng(0))
    assert torch.equal(ours[1], batch[1])
    for one, of_one in zip(ours, effects, strict=True):
        theirs = apply(of_one, image, np.random.default_rng(0), whole).astype(np.float64)
        assert np.abs(codes(one[None]) - theirs).mean() < 1.0


@pytest.mark.parametrize("effect", [MotionBlur(reach_px=5, angle=0.6), DefocusBlur(sigma_px=1.4)])
def test_blur_is_the_lenss(effect: MotionBlur | DefocusBlur) -> None:
    image = picture()
    ours = device_effects.blur(tensor(image), torch.from_numpy(effect.kernel())[None])
    assert np.abs(codes(ours) - by_library(effect, image, (0, 1))).max() <= 2.0


@pytest.mark.parametrize("quality", [15, 45, 70])
def test_compression_loses_what_the_codec_loses(quality: int) -> None:
    image = picture()
    ours = codes(device_effects.jpeg(tensor(image), torch.tensor([float(quality)])))
    theirs = by_library(Jpeg(quality=quality), image, (0, 1))
    lost = np.abs(theirs - image).mean()
    assert np.abs(ours - theirs).mean() < 0.35 * lost
    assert np.abs(ours - image).mean() == pytest.approx(lost, rel=0.15)


def scene(clean: bool, thermal: bool, value: int) -> Scene:
    image = np.clip(picture(240, 320).astype(int) // 2 + value, 0, 255).astype(np.uint8)
    return Scene(
        "s",
        image,
        image if clean else np.clip(image.astype(int) + 60, 0, 255).astype(np.uint8),
        clean,
        image[..., 0] if thermal else None,
        np.full((240, 320), value, np.uint8),
        np.array([[100, 80, 140, 160]], np.float32) if thermal else np.zeros((0, 4), np.float32),
    )


def crops_of(weights: list[float], mixed: float = 0.4) -> DeviceCrops:
    groups = [[scene(True, False, 1)], [scene(True, True, 2)], [scene(False, True, 4)]]
    return DeviceCrops(
        groups, weights, CropConfig(64, 96, batch=64, mixed=mixed, bars=0.0), 0, CPU, SIZE
    )


def test_visible_thermal_and_people_are_cut_alike() -> None:
    batch = crops_of([0, 1, 0], mixed=0.0)[range(64)]
    same = (batch["degraded"] == batch["clean"]).flatten(1).all(1)  # undegraded
    assert 0.15 < same.float().mean() < 0.5
    red, thermal = batch["clean"][same, 0].float(), batch["thermal"][same, 0].float()
    for a, b in zip(red, thermal, strict=True):  # jittered, but aligned pixel by pixel
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.7  # colours mix
    share = (batch["weight"] > 1).float().mean((1, 2, 3))
    assert ((share > 0) & (share < 1)).float().mean() > 0.4


def test_a_set_that_is_given_twice_is_stored_once_and_drawn_twice_as_often() -> None:
    dark, bright = [scene(True, False, 1)], [scene(True, False, 2)]
    crops = DeviceCrops(
        [bright, dark, bright], [1, 1, 1], CropConfig(64, 96, bars=0.0), 0, CPU, SIZE
    )
    assert len(crops.images) == 2
    labels = crops[range(30)]["label"][:, 0, 0].tolist()
    assert labels.count(2) == 20 and labels.count(1) == 10


def test_a_part_of_another_scene_of_the_group_is_pasted() -> None:
    day = [scene(True, True, 2), scene(True, True, 3)]
    crops = DeviceCrops(
        [[], day, []], [0, 1, 0], CropConfig(64, 96, mixed=1.0, bars=0.0), 0, CPU, SIZE
    )
    labels = crops[range(64)]["label"]
    both = ((labels == 2).any((1, 2))) & ((labels == 3).any((1, 2)))
    assert set(labels.unique().tolist()) == {2, 3} and 0.3 < both.float().mean() < 0.7
    share = (labels[both] != labels[both][:, :1, :1]).float().mean((1, 2))
    assert (share <= 0.37).all()


def test_a_part_too_small_for_the_rarest_group_is_refused() -> None:
    crops = crops_of([0.9, 0.07, 0.03])
    assert crops._counts(40).tolist() == [36, 3, 1]
    with pytest.raises(DataError, match=r"12 crops .* 3\.0 % of them; expected parts of 34 or"):
        crops._counts(12)


def test_frozen_statistics_are_measured_where_a_small_part_would_lack_a_group() -> None:
    """Every batch shows the groups in their shares, although a part holds one after the other."""
    crops = crops_of([0.9, 0.07, 0.03])
    batches = islice(_Batches(crops, 64, CPU), 4)  # one part
    labels = [batch["label"].flatten(1).amax(1) for batch in batches]
    assert {len(some) for some in labels} == {AT_ONCE}
    assert all((some == 1).sum() >= 14 for some in labels)
    assert {int(value) for some in labels for value in some} == {1, 2, 4}


def test_scenes_that_are_read_on_demand_are_not_kept_in_the_hosts_memory() -> None:
    class Watched(Sequence[Scene]):
        def __init__(self) -> None:
            self.made: list[ref[Scene]] = []
            self.most = 0  # alive at the same time

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: Any) -> Any:
            if index >= len(self):
                raise IndexError
            made = scene(True, False, 1)
            self.made.append(ref(made))
            self.most = max(self.most, sum(one() is not None for one in self.made))
            return made

    group = Watched()
    DeviceCrops([group], [1.0], CropConfig(64, 96), 0, CPU, SIZE)
    assert group.most <= 2


def test_a_run_gets_the_batches_of_its_steps_one_ahead() -> None:
    crops = crops_of([1, 1, 1])
    batches = load_parts(crops, 3, 2, 0, make_accelerator(2, "no"))
    for start in (192, 224, 256):  # a batch of 64 in two parts
        assert torch.equal(next(batches)["degraded"], crops[range(start, start + 32)]["degraded"])
