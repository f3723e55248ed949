# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A GPU that fails permanently: the node's process exits with a code, and launch restarts it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.clock import Clock, ClockType
from rclpy.logging import get_logger

from magicfuse_ros.deadline import DeadlineControl
from magicfuse_ros.errors import BackendError, DeviceLostError, MagicFuseError
from magicfuse_ros.ros import process
from magicfuse_ros.ros.guard import Guard
from magicfuse_ros.ros.worker import HANG_S, RELOAD_AFTER, Worker
from magicfuse_ros.topics import ImageTopic
from ros_rig import image

LOST = DeviceLostError("CUDA failed on Orin: cudaStreamSynchronize: cudaErrorIllegalAddress (700)")
TOPIC = ImageTopic("restored_image", frozenset({"restored"}), lambda frame, _: frame.restored)


class Fuser:
    """Fails with one error in every frame, and with another one when it is reloaded."""

    steps = 0

    def __init__(self, in_frame: MagicFuseError, on_reload: MagicFuseError | None = None) -> None:
        self.in_frame, self.on_reload = in_frame, on_reload
        self.frames = self.reloads = 0

    def __call__(self, pixels: Any, outputs: frozenset[str]) -> Any:
        self.frames += 1
        raise self.in_frame

    def reload(self) -> None:
        self.reloads += 1
        if self.on_reload:
            raise self.on_reload


def make_worker(fuser: Fuser, guard: Guard, thread: ThreadPoolExecutor) -> Worker:
    publishers = SimpleNamespace(wanted=lambda: [TOPIC], camera_info_wanted=lambda: False)
    control = DeadlineControl([2], default_steps=2)
    clock = Clock(clock_type=ClockType.SYSTEM_TIME)
    debug = SimpleNamespace(wanted=lambda: False)
    logger = get_logger("test")
    parts: Any = (fuser, publishers, debug, control, clock, logger, thread, None, guard)
    return Worker(*parts)


def work(fuser: Fuser, guard: Guard, images: int) -> Worker:
    """Give a worker some images, each after the previous one is done; return the worker."""
    with ThreadPoolExecutor(1) as thread:
        worker = make_worker(fuser, guard, thread)
        for stamp in range(1, images + 1):
            worker.offer(image(stamp))
            end = monotonic() + 30
            while worker.statistics.snapshot(monotonic()).failed < stamp:
                assert monotonic() < end
                sleep(0.002)
        worker.stop()
    return worker


@pytest.fixture
def guard() -> Guard:
    return Guard(lambda: get_logger("test"))


gpu_fails_for_good = pytest.mark.fault(
    "the GPU fails for good, for example after an illegal memory access",
    "the process exits with code 69 at that image, and launch restarts it",
)


@gpu_fails_for_good
def test_a_frame_that_loses_the_gpu_is_the_last(guard: Guard) -> None:
    fuser = Fuser(LOST)
    assert "cudaErrorIllegalAddress" in work(fuser, guard, 1).failure
    assert guard.lost is LOST and fuser.reloads == 0


@gpu_fails_for_good
def test_networks_that_cannot_be_loaded_as_the_gpu_is_lost_end_it_too(guard: Guard) -> None:
    fuser = Fuser(BackendError("network 'mkf.onnx': the GPU did not accept the call"), LOST)
    work(fuser, guard, RELOAD_AFTER)
    assert guard.lost is LOST and fuser.reloads == 1


@pytest.mark.fault(
    "the GPU fails temporarily, for example because its memory is full",
    "these images are counted as failed; after 5 in a row the networks are reloaded",
)
def test_other_faults_of_the_gpu_are_borne(guard: Guard) -> None:
    fuser = Fuser(BackendError("CUDA failed on Orin: cudaMalloc: cudaErrorMemoryAllocation (2)"))
    work(fuser, guard, RELOAD_AFTER)
    assert guard.lost is None and fuser.reloads == 1


@gpu_fails_for_good
def test_spinning_ends_and_the_process_has_a_code_that_launch_starts_again(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = SimpleNamespace(
        add_node=lambda node: None,
        spin_once=lambda timeout_sec: guard.run("configuration", _lose),
        shutdown=lambda: None,
    )
    monkeypatch.setattr(process, "SingleThreadedExecutor", lambda: executor)
    monkeypatch.setattr("magicfuse_ros.ros.process.rclpy.ok", lambda: True)
    node: Any = SimpleNamespace(guard=guard)
    stop: Any = False
    with pytest.raises(DeviceLostError):
        process.spin(node, stop)
    code = process._exit_code(lambda: process.spin(node, stop))
    assert code == process.DEVICE_LOST
    assert code not in (0, process.REFUSED), "the launch files end at these"


def _lose() -> None:
    raise LOST


class Hanging(Fuser):
    """Hangs in every image until it is released."""

    def __init__(self) -> None:
        super().__init__(BackendError("released"))
        self.begun, self.release = Event(), Event()

    def __call__(self, pixels: Any, outputs: frozenset[str]) -> Any:
        self.begun.set()
        self.release.wait(30)
        return super().__call__(pixels, outputs)


hangs = pytest.mark.fault(
    "a library or the GPU hangs in an image",
    "after 120 s, or at deactivation, the process exits with code 69, and launch restarts it",
)


@hangs
def test_an_image_that_never_ends_loses_the_device(guard: Guard) -> None:
    fuser = Hanging()
    with ThreadPoolExecutor(1) as thread:
        worker = make_worker(fuser, guard, thread)
        for _ in range(2 * HANG_S):
            worker.watch()
        assert guard.lost is None, "it waits for images"
        worker.offer(image(1))
        assert fuser.begun.wait(30)
        for _ in range(HANG_S):
            worker.watch()
        assert guard.lost is None
        worker.watch()
        assert "an image has taken more than 120 s" in str(guard.lost)
        fuser.release.set()
        worker.stop()


@hangs
def test_a_worker_that_hangs_ends_in_time(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magicfuse_ros.ros.worker.HANG_S", 0.2)
    fuser = Hanging()
    with ThreadPoolExecutor(1) as thread:
        worker = make_worker(fuser, guard, thread)
        worker.offer(image(1))
        assert fuser.begun.wait(30)
        worker.stop()
        assert isinstance(guard.lost, DeviceLostError)
        fuser.release.set()
