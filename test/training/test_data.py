# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Crops of scenes: the content of a batch, and the meaning of its flags."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from magicfuse_training.data.classes import (
    BICYCLIST,
    IGNORE,
    MFNET_CLASSES,
    MSRS_BOXES,
    PEDESTRIAN,
    ROAD,
    SIGN,
    SKY,
)
from magicfuse_training.data.crop_draws import (
    AROUND_RARE,
    DARK_CLOTHES,
    FEW,
    GRAIN,
    NEAR,
    NEAR_PEOPLE,
    RARE,
    SHARES,
    Bar,
    CropConfig,
    Window,
    draw_darkness,
    draw_effects,
    draw_window,
    rare_place,
)
from magicfuse_training.data.crops import Crops
from magicfuse_training.data.device_crops import DeviceCrops
from magicfuse_training.data.night import night_reference
from magicfuse_training.data.scenes import Scene, people_in, people_labelled, resized
from magicfuse_training.data.silhouettes import Silhouette, paste
from magicfuse_training.degradations import Darkness, Fog, Haze, Jpeg, Rain

NOBODY = np.zeros((0, 4), np.float32)
CONFIG = CropConfig(height=64, width=96, batch=6, night=0.0, bars=0.0)
Maker = Callable[..., Crops]


@pytest.fixture(
    params=[Crops, partial(DeviceCrops, device=torch.device("cpu"), canvas=(240, 320))],
    ids=["processor", "device"],
)
def maker(request: pytest.FixtureRequest) -> Maker:
    """Return what makes crops: processes, or the device."""
    return request.param


def scene(clean: bool, thermal: bool) -> Scene:
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (240, 320, 3), np.uint8)
    return Scene(
        "s",
        image,
        image if clean else 255 - image,
        clean,
        image[..., 0] if thermal else None,
        np.full((240, 320), 3, np.uint8),
        np.array([[100, 80, 140, 160]], np.float32) if thermal else NOBODY,
    )


def crops_of(weights: list[float], seed: int = 0, maker: Maker = Crops, **changes: Any) -> Crops:
    groups = [[scene(True, False)], [scene(True, True)], [scene(False, True)]]
    return maker(groups, weights, replace(CONFIG, **changes), seed)


def batch_of(weights: list[float], seed: int = 0, maker: Maker = Crops) -> dict[str, torch.Tensor]:
    return crops_of(weights, seed, maker)[range(CONFIG.batch)]


def test_a_batch_has_the_shapes_and_types_that_the_stages_expect(maker: Maker) -> None:
    batch = batch_of([1, 1, 1], maker=maker)
    assert batch["degraded"].shape == batch["clean"].shape == (6, 3, 64, 96)
    assert batch["thermal"].shape == batch["weight"].shape == (6, 1, 64, 96)
    assert batch["label"].shape == batch["teacher"].shape == (6, 64, 96)
    assert batch["label"].dtype == batch["teacher"].dtype == torch.int64
    assert batch["clean"].dtype == batch["degraded"].dtype == torch.uint8
    assert batch["weight"].dtype == torch.float32


def test_flags_say_what_a_scene_can_teach(maker: Maker) -> None:
    for weights, clean, thermal in (([1, 0, 0], 1, 0), ([0, 1, 0], 1, 1), ([0, 0, 1], 0, 1)):
        batch = crops_of([float(w) for w in weights], maker=maker)[range(24)]
        weight = 1.0 if clean else np.float32(CONFIG.night_weight)
        assert (batch["has_clean"] == weight).all() and (batch["has_thermal"] == thermal).all()
        assert (batch["label"] == 3).all()
        assert (batch["thermal"].amax() > 0) == bool(thermal)
        assert batch["weight"].amax() == (CONFIG.person_weight if thermal else 1)


def test_an_enlarged_crop_counts_less_as_an_image_to_restore() -> None:
    sharp = batch_of([1, 0, 0])["sharpness"]
    assert sharp.shape == (CONFIG.batch,) and (sharp > 0).all() and (sharp <= 1).all()
    enlarged = replace(CONFIG, scale=(2.0, 2.0))
    blurred = Crops([[labelled()]], [1.0], enlarged, 0)[range(12)]["sharpness"]
    assert (blurred < 0.3).all(), "each pixel of the scene fills four or more of the crop"


def test_a_night_scene_keeps_its_own_degradation_and_aims_at_its_stand_in() -> None:
    day, night = batch_of([0, 1, 0]), batch_of([0, 0, 1])
    assert (day["clean"] == day["degraded"]).float().mean() < 1
    total = night["clean"].float() + night["degraded"].float()  # image + (255 - image), jittered
    assert abs(total.mean() - 255) < 60 and (night["clean"] != night["degraded"]).any()


def test_a_night_frame_is_brightened_and_lamps_stay_white() -> None:
    image = np.full((64, 96, 3), 12, np.uint8)
    image[10:20, 10:20] = 255
    reference = night_reference(image)
    assert reference.shape == image.shape
    assert reference[40:, 40:].mean() > 3 * image[40:, 40:].mean()
    assert reference[12:18, 12:18].min() > 240


def test_the_same_seed_draws_the_same_crops_and_another_does_not(maker: Maker) -> None:
    one, same, other = (batch_of([1, 1, 1], seed, maker)["degraded"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_sample_depends_on_its_index_alone_however_batches_are_cut() -> None:
    crops = crops_of([1, 1, 1])
    whole = crops[range(6, 12)]
    parts = [crops[range(6, 9)], crops[range(9, 12)]]
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([p[name] for p in parts])), name
    first, second = itertools.islice(crops, 2)
    assert torch.equal(second["degraded"], whole["degraded"])
    assert not torch.equal(first["degraded"], second["degraded"])


def test_an_epoch_counts_the_scenes_that_can_be_drawn() -> None:
    assert crops_of([1, 1, 1]).scenes == 3 and crops_of([1, 0, 1]).scenes == 2


def test_boxes_are_in_pixels_and_of_the_wanted_kind(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "b.txt"
    path.write_text("0 0.5 0.5 0.5 1.0\n2 0.1 0.1 0.1 0.1\n")
    assert people_in(path, MSRS_BOXES, 100, 200).tolist() == [[50, 0, 150, 100]]


def test_crops_show_people_more_often_by_day_than_at_night() -> None:
    rng, box = np.random.default_rng(0), np.array([[100, 80, 140, 160]], np.float32)

    def share(clean: bool) -> float:
        windows = [
            draw_window((240, 320), clean, box, lambda _: None, CONFIG, rng) for _ in range(4000)
        ]
        shown = [v.y < 120 < v.y + v.height and v.x < 120 < v.x + v.width for v in windows]
        return float(np.mean(shown))

    assert share(clean=True) > share(clean=False) + 0.04


def test_some_crops_show_people_from_near(maker: Maker) -> None:
    """Crops at common scales are at least 1.5 times as wide as the box."""
    weight = crops_of([0, 1, 0], maker=maker, mixed=0.0)[range(400)]["weight"]
    near = ((weight > 1).float().mean((1, 2, 3)) > 0.75).float().mean()
    assert NEAR / 8 < near < NEAR


def test_some_close_ups_show_something_else_than_people() -> None:
    rng, wide = np.random.default_rng(0), CONFIG.width / CONFIG.scale[1]
    somebody = np.array([[100, 80, 140, 160]], np.float32)

    def close_ups(people: np.ndarray) -> list[Window]:
        windows = [
            draw_window((480, 640), True, people, lambda _: None, CONFIG, rng) for _ in range(2000)
        ]
        near = [window for window in windows if window.width < 0.8 * wide]
        assert 0.5 * NEAR < len(near) / len(windows) < NEAR
        return near

    close_ups(NOBODY)
    near = close_ups(somebody)
    around = [w for w in near if w.x < 120 < w.x + w.width and w.y < 120 < w.y + w.height]
    assert len(around) / len(near) == pytest.approx(NEAR_PEOPLE, abs=0.1)


@pytest.mark.parametrize("top", [True, False])
def test_a_bar_mirrors_the_rows_beside_it(top: bool) -> None:
    rows = Bar(3, top).sources(10)
    padded = np.pad(np.arange(3, 10) if top else np.arange(7), (3 * top, 3 * (not top)), "reflect")
    assert rows.tolist() == padded.tolist()


def test_some_crops_lie_at_an_edge_of_their_scene_and_have_a_bar_without_labels(
    maker: Maker,
) -> None:
    batch = crops_of([1, 0, 0], maker=maker, mixed=0.0, bars=0.3)[range(200)]
    ignored = (batch["label"] == IGNORE).all(2)
    top, bottom = ignored[:, 0], ignored[:, -1]
    assert not (top & bottom).any()
    assert (top | bottom).float().mean() == pytest.approx(0.3, abs=0.1)
    for name in ("degraded", "clean"):
        for image, hidden in zip(batch[name][top], ignored[top], strict=True):
            n = int(hidden.sum())
            assert torch.equal(image[:, :n], image[:, n + 1 : 2 * n + 1].flip(1))
    window = draw_window(
        (480, 640), True, NOBODY, lambda _: None, CONFIG, np.random.default_rng(0), Bar(9, False)
    )
    assert window.y + window.height == pytest.approx(480)


def test_light_and_haze_are_as_coarse_in_a_crop_as_in_its_frame() -> None:
    gray, rng = np.full((240, 320, 3), 128, np.uint8), np.random.default_rng(0)
    dark = Darkness.draw(0.2, rng).model_copy(update={"full_well": 1e9, "read_noise": 0.0})
    for effect in (dark, Haze.draw(0.5, rng)):
        whole = effect.apply(gray, np.random.default_rng(0))
        part = effect.cut((0.25, 0.75), (0.5, 1.0))
        crop = part.apply(gray[60:180, 160:], np.random.default_rng(0), (0.25, 0.75))
        assert np.abs(whole[60:180, 160:].astype(int) - crop).mean() < 1.0


def test_every_degradation_has_its_share() -> None:
    rng, count = np.random.default_rng(0), 4000
    kinds = [{type(e) for e in draw_effects(True, rng, 0.25)} for _ in range(count)]
    wanted = {
        Darkness: SHARES.dark, Haze: SHARES.haze, Fog: SHARES.fog, Rain: SHARES.rain,
    }  # fmt: skip
    for kind, share in wanted.items():
        found = sum(kind in some for some in kinds) / count
        assert found == pytest.approx(0.75 * share, abs=0.03) and found > 0.4 * share, kind
    assert kinds.count(set()) / count == pytest.approx(0.25, abs=0.03)
    none = sum(bool(some) and not some & set(wanted) for some in kinds) / count
    assert none == pytest.approx(0.75 * (1 - sum(wanted.values())), abs=0.03)
    assert kinds.count({Jpeg}) > 0.015 * count


def test_some_noisy_crops_are_not_dark() -> None:
    """Cameras that expose by themselves make noise bright: noise alone must not mean darkness."""
    rng = np.random.default_rng(0)
    drawn = [draw_darkness(rng.random(), rng) for _ in range(1000)]
    left = np.array([d.stops - np.log2(d.gain) for d in drawn])
    noisy = np.array([d.gain for d in drawn]) > 4.1  # more than without such a camera
    assert (left[noisy] <= 1).all()
    assert 0.7 * SHARES.exposed < noisy.mean() < SHARES.exposed
    gray = np.full((64, 64, 3), 110, np.uint8)
    for effect in [d for d, n in zip(drawn, noisy, strict=True) if n][:20]:
        cells = effect.apply(gray, rng).reshape(4, 16, 4, 16, 3).mean((1, 3, 4))
        assert cells.min() > 60 and cells.max() < 150  # neither dark nor lit by lamps


def test_a_label_keeps_its_place_when_it_is_resized() -> None:
    label = np.zeros((240, 320), np.uint8)
    label[60:180, 80:240] = 1  # in the middle
    for size in ((360, 480), (480, 640), (120, 160), (100, 133)):
        rows, columns = np.nonzero(resized(label, size, label=True))
        assert abs(rows.mean() - (size[0] - 1) / 2) < 0.26, size
        assert abs(columns.mean() - (size[1] - 1) / 2) < 0.26, size


def test_crops_and_their_labels_lie_on_each_other() -> None:
    """A bright half and its label have the same border, mirrored or not."""
    image, label = np.zeros((240, 320, 3), np.uint8), np.zeros((240, 320), np.uint8)
    image[:, 160:], label[:, 160:] = 255, 1
    half = Scene("s", image, image, True, None, label, NOBODY)
    batch = Crops([[half]], [1.0], replace(CONFIG, clean=1.0, mixed=0.0, night=0.0), 0)[range(300)]
    bright = (batch["clean"].float().mean(1) > 120).float().mean((1, 2))
    shown = (bright > 0.1) & (bright < 0.9)
    shift = (batch["label"].float().mean((1, 2)) - bright)[shown] * CONFIG.width
    assert shown.sum() > 50 and abs(float(shift.mean())) < 0.15


@pytest.mark.parametrize(
    ("enlargement", "scale", "grain"),
    [
        (1.0, 1.0, 1.0),
        (1.25, 1.0, 1.25),
        (1.25, 0.6, 1.0),  # the crop averages pixels of the sensor: no coarser than its own
        (1.25, 4.0, GRAIN),  # somebody near, not a camera with fewer pixels
    ],
)
def test_the_grain_of_a_crop_is_that_of_its_camera(
    enlargement: float, scale: float, grain: float
) -> None:
    window = Window(0, 0, CONFIG.height / scale, CONFIG.width / scale, False)
    assert window.grain(CONFIG, enlargement) == pytest.approx(grain)


def test_dark_crops_of_an_enlarged_scene_have_coarse_noise() -> None:
    image, label = np.full((240, 320, 3), 128, np.uint8), np.full((240, 320), IGNORE, np.uint8)

    def alike(enlargement: float) -> float:
        """Return the correlation of neighbouring pixels in noisy crops."""
        flat = Scene("s", image, image, True, None, label, NOBODY, enlargement=enlargement)
        config = replace(CONFIG, clean=0.0, mixed=0.0, scale=(0.5, 0.5))
        batch = Crops([[flat]], [1.0], config, 0)[range(60)]["degraded"].float()
        noise = batch[..., 1:] - batch[..., :-1]
        noisy = noise.std((1, 2, 3)) > 4
        assert noisy.sum() > 5
        left, right = noise[noisy][..., 1:].flatten(), noise[noisy][..., :-1].flatten()
        return float(torch.corrcoef(torch.stack([left, right]))[0, 1])

    # Differences of independent pixels have a correlation of -0.5.
    assert alike(1.0) < -0.35 < -0.25 < alike(2.8)


def test_labelled_people_and_riders_get_boxes_but_for_the_smallest() -> None:
    label = np.full((240, 320), SKY, np.uint8)
    label[80:160, 100:140] = PEDESTRIAN
    label[20:26, 10:14] = PEDESTRIAN
    label[100:140, 200:260] = BICYCLIST
    assert sorted(people_labelled(label).tolist()) == [[100, 80, 140, 160], [200, 100, 260, 140]]
    assert people_labelled(label, MFNET_CLASSES).tolist() == []  # it is another class there
    assert people_labelled(np.zeros_like(label)).shape == (0, 4)


@pytest.mark.parametrize(("scenes", "patched"), [(FEW, True), (FEW + 1, False)])
def test_crops_of_few_scenes_get_patches_of_others(
    maker: Maker, scenes: int, patched: bool
) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    group = [
        Scene("s", image, image, True, None, np.full((64, 96), i % 2, np.uint8), NOBODY)
        for i in range(scenes)
    ]
    label = maker([group], [1.0], replace(CONFIG, mixed=1.0), 0)[range(40)]["label"]
    both = [0 < share < 1 for share in label.float().mean((1, 2)).tolist()]
    assert any(both) == patched, "half of the patches come from a scene of the other class"


def test_some_people_wear_dark_clothes_by_day(maker: Maker) -> None:
    image = np.full((240, 320, 3), 160, np.uint8)
    label = np.full((240, 320), 3, np.uint8)
    label[:, :160] = PEDESTRIAN

    def dressed(clean: bool, people: tuple[int, ...] = (PEDESTRIAN,)) -> float:
        """Return the share of crops with darker people, among the crops that show both."""
        scenes = [[], [Scene("s", image, image, clean, image[..., 0], label, NOBODY)], []]
        config = CropConfig(height=64, width=96, clean=1.0, mixed=0.0, bars=0.0, people=people)
        batch = maker(scenes, [0.0, 1.0, 0.0], config, 0)[range(600)]
        left = (batch["label"] == PEDESTRIAN)[:, None].float()
        shown = (left.mean((1, 2, 3)) - 0.5).abs() < 0.4
        luma = batch["clean"].float().mean(1, keepdim=True)
        inside, outside = (
            (luma * some).sum((1, 2, 3)) / some.sum((1, 2, 3)).clamp_min(1)
            for some in (left, 1 - left)
        )
        if clean:
            assert torch.equal(batch["degraded"], batch["clean"])
        return float((inside < 0.85 * outside)[shown].float().mean())

    assert DARK_CLOTHES - 0.12 < dressed(clean=True) < DARK_CLOTHES + 0.12
    assert dressed(clean=False) == 0
    assert dressed(clean=True, people=(PEDESTRIAN + 1,)) == 0
    assert dressed(clean=True, people=()) == 0


def labelled(thermal: bool = False, night: bool = False) -> Scene:
    """Return a scene of sky above a road, with a person of 90 pixels on it."""
    image = np.full((240, 320, 3), (150, 160, 190), np.uint8)
    label = np.full((240, 320), SKY, np.uint8)
    image[100:], label[100:] = (110, 105, 100), ROAD
    image[110:200, 140:170], label[110:200, 140:170] = (60, 30, 30), PEDESTRIAN
    if night:
        image = image // 8
    return Scene(
        "s", image, image, not night, image[..., 0] if thermal else None, label,
        people_labelled(label),
    )  # fmt: skip


def test_some_labelled_days_are_seen_at_night_with_their_own_masks() -> None:
    always = replace(CONFIG, night=1.0, clean=1.0, mixed=0.0)
    dark = Crops([[labelled()]], [1.0], always, 0)[range(20)]
    sky, people = (dark["label"] == i for i in (SKY, PEDESTRIAN))
    assert people.any() and sky.any()
    luma = dark["degraded"].float().mean(1)
    assert luma[sky].mean() < 70 < dark["clean"].float().mean()
    assert (dark["has_clean"] == np.float32(CONFIG.night_weight)).all()
    for kept in (labelled(thermal=True), replace_label(labelled(), 255)):
        day = Crops([[kept]], [1.0], always, 0)[range(6)]
        assert (day["has_clean"] == 1).all(), "a thermal image, or no classes to go by"


def replace_label(scene: Scene, value: int) -> Scene:
    return replace(scene, label=np.full_like(scene.label, value))


@pytest.mark.parametrize("by", ["processor", "device"])
def test_a_crop_can_come_with_what_the_camera_saw_before_it_was_degraded(by: str) -> None:
    def batch(scene: Scene, **change: float) -> dict[str, torch.Tensor]:
        config = replace(CONFIG, mixed=0.0, **change)
        crops = (
            Crops([[scene]], [1.0], config, 0, undegraded=True)
            if by == "processor"
            else DeviceCrops([[scene]], [1.0], config, 0, torch.device("cpu"), (240, 320), True)
        )
        return crops[range(20)]

    day = batch(labelled(), clean=0.0)
    assert torch.equal(day["seen"], day["clean"]) and not torch.equal(day["seen"], day["degraded"])
    night = batch(replace(labelled(night=True), target=labelled().visible))
    same = (night["seen"] == night["degraded"]).flatten(1).all(1)
    assert not same.all() and same.any(), "few real nights are darkened further"
    assert night["seen"].float().mean() < 0.5 * night["clean"].float().mean()
    if by == "processor":
        made = batch(labelled(), night=1.0)
        assert (made["has_clean"] < 1).all()
        assert made["seen"].float().mean() > 2 * made["degraded"].float().mean()
    assert "seen" not in batch_of([1, 1, 1])


def test_people_of_other_scenes_are_put_into_nights_and_get_their_light_and_label() -> None:
    night = replace(replace_label(labelled(thermal=True, night=True), ROAD), people=NOBODY)
    config = replace(CONFIG, pasted=1.0, mixed=0.0)
    crops = Crops([[labelled()], [night]], [0.0, 1.0], config, 0)
    batch = crops[range(30)]
    person = batch["label"] == PEDESTRIAN
    assert person.any(2).any(1).float().mean() > 0.3 and person.float().mean() < 0.5
    assert torch.equal(person, batch["weight"][:, 0] > 1)
    luma, thermal = batch["degraded"].float().mean(1), batch["thermal"][:, 0].float()
    assert luma[person].mean() < 4 * luma[~person].mean() + 10  # no brighter than a lamp makes it
    assert thermal[person].mean() > thermal[~person].mean() + 20
    nobody = Crops([[labelled()], [night]], [0.0, 1.0], replace(config, pasted=0.0), 0)[range(30)]
    assert not (nobody["label"] == PEDESTRIAN).any()


def test_nobody_is_put_into_a_night_without_labels() -> None:
    night = replace(replace_label(labelled(thermal=True, night=True), IGNORE), people=NOBODY)
    config = replace(CONFIG, pasted=1.0, mixed=0.0)
    batch = Crops([[labelled()], [night]], [0.0, 1.0], config, 0)[range(20)]
    assert (batch["label"] == IGNORE).all()


def test_people_are_as_noisy_as_the_place_that_they_are_put_into() -> None:
    person = Silhouette(np.full((160, 60, 3), 120, np.uint8), np.full((160, 60), 255, np.uint8))
    found = {}
    for noise in (0.0, 8.0):
        rng = np.random.default_rng(1)
        night = (40 + rng.normal(0, noise, (256, 320, 3))).clip(0, 255).astype(np.uint8)
        crop = {"visible": night.copy(), "target": night.copy()}
        crop |= {
            n: np.zeros((256, 320), np.uint8) for n in ("thermal", "label", "teacher", "people")
        }
        paste(crop, [person], rng)
        inside = crop["label"] == PEDESTRIAN
        assert inside.sum() > 300
        grain = np.diff(crop["visible"].astype(float), axis=1)[inside[:, 1:] & inside[:, :-1]]
        found[noise] = float(np.median(np.abs(grain))) / 0.6745 / 2**0.5
    assert found[0.0] < 1 and 5 < found[8.0] < 11


def test_a_crop_of_a_small_scene_is_enlarged_and_never_stretched() -> None:
    """A box that is twice as high as wide stays so, whatever the scene's size."""
    scene = labelled()
    low = replace(scene, visible=scene.visible[80:160], target=scene.target[80:160],
                  label=scene.label[80:160], people=NOBODY)  # fmt: skip
    low.label[:] = ROAD
    low.label[20:60, 100:120] = PEDESTRIAN
    crops = Crops([[low]], [1.0], replace(CONFIG, height=128, width=96, mixed=0.0), 0)
    ratios = []
    for mask in crops[range(120)]["label"] == PEDESTRIAN:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        inside = len(rows) and rows[0] > 0 and rows[-1] < 127 and columns[0] > 0
        if inside and columns[-1] < 95:
            ratios.append(len(rows) / len(columns))
    assert ratios and min(ratios) > 1.5 and max(ratios) < 2.6


def test_crops_are_often_around_a_rare_class(maker: Maker) -> None:
    scene = replace(replace_label(labelled(), ROAD), people=NOBODY)
    scene.label[10:14, 300:304] = SIGN
    crops = maker([[scene]], [1.0], replace(CONFIG, mixed=0.0), 0)
    shown = (crops[range(300)]["label"] == SIGN).any(2).any(1).float().mean()
    assert 0.8 * AROUND_RARE < shown < 0.6
    assert rare_place(np.full((8, 8), ROAD, np.uint8), RARE, np.random.default_rng(0)) is None
