# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""One copy of the networks for several cameras: loaded once, freed with the last, reloaded."""

from __future__ import annotations

import gc
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest

from magicfuse_ros import shared_networks
from magicfuse_ros.backends import Choice, openvino, select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import BackendError, BundleError, MagicFuseError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.sampler import Sampler
from magicfuse_ros.shared_networks import Lease, SharedNetworks
from tiny_bundle import UNCERTAINTY, build

CHOICE = Choice("openvino", "openvino", "asked for")
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)


class Garage:
    """Shared networks whose loads are counted, and can be made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bundle: Path, at_once: int = 1) -> None:
        self.shared, self.bundle = SharedNetworks(at_once), Bundle.load(bundle)
        self.loads = 0
        self.error: Exception | None = None

        def load(*arguments: Any) -> Sampler:
            self.loads += 1
            if self.error is not None:
                raise self.error
            return Sampler(*arguments)

        monkeypatch.setattr(shared_networks, "Sampler", load)

    def lease(self, name: str, choice: Choice = CHOICE, threads: int = 1) -> Lease:
        return self.shared.lease(name, self.bundle, choice, threads)

    def fuser(self, lease: Lease, **values: Any) -> Fuser:
        return Fuser(self.bundle, lease.backend, sampler=lease, **values)


@pytest.fixture
def garage(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> Garage:
    return Garage(monkeypatch, tiny_bundle)


def test_networks_are_loaded_once_and_freed_with_the_last_camera(garage: Garage) -> None:
    with ThreadPoolExecutor(3) as threads:  # as the cameras of a process start: all at once
        front, rear, left = threads.map(garage.lease, ("/front", "/rear", "/left"))
    assert garage.loads == 1
    assert sorted(front.others()) == ["/left", "/rear"]
    networks = weakref.ref(front.loaded.samplers)
    for lease in (front, rear):
        lease.free()
        lease.free()
        del lease.loaded
    gc.collect()
    assert left.others() == [] and networks() is not None
    left.free()
    del left.loaded
    gc.collect()
    assert networks() is None
    garage.lease("/front")
    assert garage.loads == 2


def test_networks_that_compute_otherwise_are_not_shared(garage: Garage) -> None:
    other = Choice("onnxruntime", "onnxruntime", "asked for")
    leases = [garage.lease("/a"), garage.lease("/b", threads=2), garage.lease("/c", other)]
    assert garage.loads == 3
    assert [lease.others() for lease in leases] == [[], [], []]


@pytest.mark.parametrize("steps", [1, 2])  # K = 1 runs all networks as one
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_two_images_are_computed_at_the_same_time_and_the_others_wait(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, backend: str, steps: int
) -> None:
    """On one set of networks; the results are those of a camera alone."""
    garage = Garage(monkeypatch, tiny_bundle, at_once=2)
    choice = Choice(backend, backend, "asked for")
    leases = [garage.lease(name, choice) for name in ("/front", "/rear", "/left", "/right")]
    assert garage.loads == 1
    fusers = [garage.fuser(lease, steps=steps) for lease in leases]
    images = [np.roll(IMAGE, 8 * shift, 1) for shift in range(len(fusers))]
    alone = Fuser(garage.bundle, select(backend, 1), steps=steps)
    expected = [alone(image) for image in images]
    both, sample = Barrier(2, timeout=30), Sampler.sample
    in_turn: list[int] = []

    def sample_with_another(*arguments: Any) -> Any:
        both.wait()  # breaks if only one at a time gets here
        in_turn.append(sum(lease.seat.state.name == "IN_TURN" for lease in leases))
        return sample(*arguments)

    with monkeypatch.context() as patched, ThreadPoolExecutor(len(fusers)) as threads:
        patched.setattr(Sampler, "sample", sample_with_another)
        for _ in range(3):
            frames = threads.map(lambda fuser, image: fuser(image), fusers, images)
            for frame, wanted in zip(frames, expected, strict=True):
                np.testing.assert_array_equal(frame.mag_image, wanted.mag_image)
                np.testing.assert_array_equal(frame.mask, wanted.mask)
    assert max(in_turn) == 2


def test_images_at_the_same_time_share_the_cores() -> None:
    config = openvino.settings(0, 2)
    assert config["NUM_STREAMS"] == 2 and "INFERENCE_NUM_THREADS" not in config
    assert openvino.settings(3, 2)["INFERENCE_NUM_THREADS"] == 6
    assert openvino.settings(3)["NUM_STREAMS"] == 1


def test_what_a_camera_sets_is_its_own(garage: Garage) -> None:
    front = garage.fuser(garage.lease("/front"), tau=0.0)
    rear = garage.fuser(garage.lease("/rear"), tau=1.0, steps=1, fit="stretch")
    alone = Fuser(garage.bundle, select("openvino", 1), tau=0.0)
    expected = alone(IMAGE)
    for _ in range(2):
        assert rear(IMAGE).steps == 1
        frame = front(IMAGE)
        assert frame.steps == expected.steps == 2
        np.testing.assert_array_equal(frame.mag_image, expected.mag_image)
    assert frame.stages_ms["waiting"] >= 0


def test_reloaded_networks_serve_all_and_are_loaded_once(
    garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = [garage.lease("/front"), garage.lease("/rear")]
    front, rear = map(garage.fuser, leases)
    expected = front(IMAGE).mag_image
    with monkeypatch.context() as broken:
        broken.setattr(Sampler, "sample", lambda *arguments: 1 / 0)
        for fuser in (front, rear):
            with pytest.raises(ZeroDivisionError):
                fuser(IMAGE)
    garage.error = BackendError("no memory is left")
    before = leases[0].loaded.samplers
    with pytest.raises(BackendError, match="no memory"):
        front.reload()
    assert leases[0].loaded.samplers is before
    garage.error, garage.loads = None, 0
    front.reload()
    rear.reload()  # it has failed with the old ones, too
    assert garage.loads == 1
    assert leases[0].loaded is leases[1].loaded
    np.testing.assert_array_equal(rear(IMAGE).mag_image, expected)


def test_a_camera_that_fails_alone_reloads_only_once(
    garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, rear = (garage.fuser(garage.lease(name), tau=0.5) for name in ("/front", "/rear"))
    front(IMAGE)
    sample = Sampler.sample

    def fails(self: Sampler, image: Any, outputs: Any, steps: int, tau: float) -> Any:
        if tau == 1.0:
            raise RuntimeError("a defect")
        return sample(self, image, outputs, steps, tau)

    monkeypatch.setattr(Sampler, "sample", fails)
    front.tau, garage.loads = 1.0, 0
    for _ in range(3):
        rear(IMAGE)
        with pytest.raises(RuntimeError):
            front(IMAGE)
        try:
            front.reload()
        except MagicFuseError as error:
            assert "they work for /rear" in str(error)
    assert garage.loads == 1
    front.tau = 0.5
    front(IMAGE)  # what fails now is not the networks
    with pytest.raises(MagicFuseError, match="they work for /rear"):
        front.reload()
    rear.tau = front.tau = 1.0  # now it is
    for loads in (2, 3):
        for fuser in (front, rear):
            with pytest.raises(RuntimeError):
                fuser(IMAGE)
        front.reload()
        assert garage.loads == loads


def test_a_camera_whose_image_is_in_the_networks_still_counts_as_one_that_they_work_for(
    garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, rear = (garage.fuser(garage.lease(name), tau=0.5) for name in ("/front", "/rear"))
    rear(IMAGE)
    inside, go_on, sample = Event(), Event(), Sampler.sample

    def waits_or_fails(self: Sampler, image: Any, outputs: Any, steps: int, tau: float) -> Any:
        if tau == 1.0:
            raise RuntimeError("a defect")
        inside.set()
        assert go_on.wait(30)
        return sample(self, image, outputs, steps, tau)

    monkeypatch.setattr(Sampler, "sample", waits_or_fails)
    front.tau = 1.0
    with pytest.raises(RuntimeError):
        front(IMAGE)
    front.reload()
    with pytest.raises(RuntimeError):
        front(IMAGE)
    with ThreadPoolExecutor(1) as thread:
        image = thread.submit(rear, IMAGE)
        try:
            assert inside.wait(30)
            with pytest.raises(MagicFuseError, match="they work for /rear"):
                front.reload()
        finally:
            go_on.set()
        image.result(30)
    assert garage.loads == 2


def test_a_changed_bundle_is_only_for_the_camera_that_reloads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    garage = Garage(monkeypatch, build(tmp_path / "bundle"))
    leases = [garage.lease("/front"), garage.lease("/rear")]
    front, rear = map(garage.fuser, leases)
    networks = leases[1].loaded
    shutil.rmtree(tmp_path / "bundle")
    build(tmp_path / "bundle", UNCERTAINTY)
    front.reload()
    assert "thermal_uncertainty" in front.outputs
    assert front(IMAGE).thermal_uncertainty is not None
    assert leases[1].loaded is networks and leases[1].others() == leases[0].others() == []
    assert rear(IMAGE).thermal_uncertainty is None


def test_a_bundle_with_other_classes_is_not_taken_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    garage = Garage(monkeypatch, build(tmp_path / "bundle"))
    front = garage.fuser(garage.lease("/front"))
    load = Bundle.load

    def replaced(root: Path) -> Bundle:
        bundle = load(root)
        changes = {"classes": bundle.manifest.classes[:-1]}
        return Bundle(bundle.root, bundle.manifest.model_copy(update=changes))

    monkeypatch.setattr(Bundle, "load", replaced)
    with pytest.raises(BundleError, match="replaced by one with other classes; clean up"):
        front.reload()
    assert front(IMAGE).mag_image is not None


def test_a_load_that_fails_leaves_nothing_behind(garage: Garage) -> None:
    garage.error = BackendError("the driver is still loading")
    with pytest.raises(MagicFuseError, match="still loading"):
        garage.lease("/front")
    garage.error = None
    lease = garage.lease("/front")
    assert (garage.loads, lease.others()) == (2, [])
    assert garage.fuser(lease)(IMAGE).mag_image is not None
