# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The worker with a fuser that the test controls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, sleep, thread_time, time_ns
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.clock import Clock, ClockType
from rclpy.logging import get_logger
from sensor_msgs.msg import CameraInfo

from magicfuse_ros.deadline import DeadlineControl
from magicfuse_ros.fuser import FusedFrame
from magicfuse_ros.ros import worker
from magicfuse_ros.ros.worker import RELOAD_AFTER, Worker
from magicfuse_ros.topics import ImageTopic
from magicfuse_ros.turns import Seat, Turns
from ros_rig import image

TOPIC = ImageTopic("restored_image", frozenset({"restored"}), lambda frame, _: frame.restored)


class FakeFuser:
    """Waits before every frame until the test lets it continue."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.asked: list[frozenset[str]] = []
        self.error: BaseException | None = None
        self.repaired_by_reload = False
        self.reloads = 0

    def reload(self) -> None:
        self.reloads += 1
        if self.repaired_by_reload:
            self.error = None

    def __call__(self, pixels: Any, outputs: frozenset[str]) -> FusedFrame:
        self.asked.append(outputs)
        self.go.acquire()
        if self.error is not None:
            raise self.error
        return FusedFrame(None, np.asarray(pixels), None, None, None, None, 2, {"total": 1.0})


class FakePublishers:
    def __init__(self) -> None:
        self.topics = [TOPIC]
        self.stamps: list[int] = []
        self.infos: list[Any] = []
        self.info_subscribed = False

    def wanted(self) -> list[ImageTopic]:
        return self.topics

    def camera_info_wanted(self) -> bool:
        return self.info_subscribed

    def publish(self, frame: FusedFrame, topics: Any, header: Any, camera_info: Any) -> None:
        self.stamps.append(header.stamp.sec)
        self.infos.append(camera_info)


class FakeDebug:
    def __init__(self) -> None:
        self.subscribed = False

    def wanted(self) -> bool:
        return self.subscribed

    def publish(self, *figures: Any) -> None:
        pass


class InTurn(FakeFuser):
    """Takes a turn for each frame, like shared networks."""

    def __init__(self, seat: Seat) -> None:
        super().__init__()
        self._seat = seat

    def __call__(self, pixels: Any, outputs: frozenset[str]) -> FusedFrame:
        with self._seat.turn() as waited:
            frame = super().__call__(pixels, outputs)
        frame.stages_ms["waiting"] = 1e3 * waited
        return frame


class Bench:
    def __init__(self, seat: Seat | None = None) -> None:
        self.fuser, self.publishers, self.debug = FakeFuser(), FakePublishers(), FakeDebug()
        clock = Clock(clock_type=ClockType.SYSTEM_TIME)
        self.control = control = DeadlineControl([2], default_steps=2)
        self.thread = ThreadPoolExecutor(max_workers=1)
        logger = get_logger("test")
        self.seat: Any = seat
        if seat is not None:
            self.fuser = InTurn(seat)
        parts: Any = (self.fuser, self.publishers, self.debug, control, clock, logger, self.thread)
        self.worker = Worker(*(*parts, None, None, seat))

    def counts(self) -> dict[str, int]:
        snapshot = self.worker.statistics.snapshot(monotonic())
        return {k: getattr(snapshot, k) for k in ("received", "fused", "dropped", "idle", "failed")}

    def refused(self) -> Mapping[str, int]:
        return self.worker.statistics.snapshot(monotonic()).refused

    def has_failed(self, count: int) -> bool:
        return self.counts()["failed"] == count

    def handled(self) -> int:
        return self.counts()["fused"] + sum(self.refused().values())

    def stop(self) -> None:
        self.fuser.go.release(100)
        self.worker.stop()
        self.thread.shutdown()


def wait_for(done: Callable[[], bool]) -> None:
    end = monotonic() + 60
    while not done():
        assert monotonic() < end
        sleep(0.002)


@pytest.fixture
def bench() -> Any:
    made = Bench()
    yield made
    made.stop()


def test_while_a_frame_is_in_work_only_the_newest_waits(bench: Bench) -> None:
    bench.worker.offer(image(stamp=1))
    wait_for(lambda: len(bench.fuser.asked) == 1)
    for stamp in range(2, 10):
        bench.worker.offer(image(stamp))
    bench.fuser.go.release(2)
    wait_for(lambda: len(bench.publishers.stamps) == 2)
    assert bench.publishers.stamps == [1, 9]
    wait_for(lambda: bench.counts()["fused"] == 2)
    assert bench.counts() == {"received": 9, "fused": 2, "dropped": 7, "idle": 0, "failed": 0}


def test_a_defect_costs_one_frame(bench: Bench) -> None:
    bench.fuser.error = RuntimeError("out of memory")
    bench.fuser.go.release()
    bench.worker.offer(image(stamp=1))
    wait_for(lambda: bench.counts()["failed"] == 1)
    bench.fuser.error = None
    bench.fuser.go.release()
    bench.worker.offer(image(stamp=2))
    wait_for(lambda: bench.counts()["fused"] == 1)
    assert bench.publishers.stamps == [2]
    assert bench.counts() == {"received": 2, "fused": 1, "dropped": 0, "idle": 0, "failed": 1}


def test_without_subscribers_nothing_is_fused(bench: Bench) -> None:
    bench.publishers.topics = []
    bench.worker.offer(image())
    wait_for(lambda: bench.counts()["idle"] == 1)
    assert bench.fuser.asked == []


def test_stop_finishes_the_frame_in_work(bench: Bench) -> None:
    bench.worker.offer(image(stamp=1))
    wait_for(lambda: len(bench.fuser.asked) == 1)
    bench.worker.offer(image(stamp=2))
    bench.fuser.go.release()
    bench.worker.stop()
    bench.worker.stop()
    assert bench.publishers.stamps == [1]
    snapshot = bench.worker.statistics.snapshot(monotonic())
    assert snapshot.drops == {"the node was deactivated": 1}
    assert snapshot.received == snapshot.fused + snapshot.dropped == 2


def test_images_lost_one_after_the_other_lead_to_a_reload(bench: Bench) -> None:
    bench.fuser.error = RuntimeError("device lost")
    bench.fuser.repaired_by_reload = True
    bench.fuser.go.release(100)
    for stamp in range(1, RELOAD_AFTER + 1):
        assert bench.fuser.reloads == 0
        bench.worker.offer(image(stamp))
        wait_for(partial(bench.has_failed, stamp))
    wait_for(lambda: bench.fuser.reloads == 1)
    assert "5 images in a row were lost: RuntimeError: device lost" in bench.worker.failure
    bench.worker.offer(image(stamp=10))
    wait_for(lambda: bench.counts()["fused"] == 1)
    assert bench.worker.failure == ""


def test_no_result_waits_for_the_input_checks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured() -> int:
        latest = bench.worker.checks.latest(monotonic())
        return 0 if latest is None else 1 + latest.repeats  # all images are the same here

    then: list[int] = []
    monkeypatch.setattr(bench.publishers, "publish", lambda *result: then.append(measured()))
    bench.fuser.go.release(2)
    bench.worker.offer(image(stamp=1))
    wait_for(lambda: measured() == 1)
    assert then == [0]
    bench.fuser.error = RuntimeError("out of memory")  # the camera is still judged
    bench.worker.offer(image(stamp=2))
    wait_for(lambda: measured() == 2)


def test_a_defect_in_the_checks_costs_no_image(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.worker.checks, "add", lambda *image: 1 / 0)
    bench.fuser.go.release(2)
    for count in (1, 2):
        bench.worker.offer(image(stamp=count))
        wait_for(lambda n=count: bench.counts()["fused"] == n)  # type: ignore[misc]
    assert bench.counts()["failed"] == 0


def test_a_defect_that_stays_does_not_reload_all_the_time(bench: Bench) -> None:
    bench.fuser.error = RuntimeError("device lost")
    bench.fuser.go.release(100)
    for count in range(1, 20):
        bench.worker.offer(image(stamp=count))
        wait_for(partial(bench.has_failed, count))
    assert bench.fuser.reloads == 1
    assert bench.worker.failure.startswith("19 images in a row were lost")


def test_each_reload_in_vain_doubles_the_pause_before_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image a second: every one up to the 50th is lost, the 51st is fused, others are lost."""
    seconds = 0
    fuse, reloads = FakeFuser.__call__, []

    def fuse_one(self: FakeFuser, pixels: Any, outputs: frozenset[str]) -> FusedFrame:
        nonlocal seconds
        seconds += 1
        if seconds != 51:
            raise RuntimeError("device lost")
        return fuse(self, pixels, outputs)

    long_ago = monotonic() - 1000.0  # the mailbox has the real clock: every image is due
    monkeypatch.setattr(worker, "monotonic", lambda: long_ago + seconds)
    monkeypatch.setattr(FakeFuser, "__call__", fuse_one)
    monkeypatch.setattr(FakeFuser, "reload", lambda _: reloads.append(seconds))
    bench.fuser.go.release(1)
    for number in range(1, 122):
        bench.worker.offer(image(stamp=number))
        wait_for(lambda: sum(bench.counts()[k] for k in ("fused", "failed")) == number)  # noqa: B023
    bench.worker.stop()
    assert reloads == [5, 15, 35, 61, 71, 91]


def test_nothing_is_fused_twice_or_out_of_order(bench: Bench) -> None:
    bench.fuser.go.release(100)

    def offer(seconds: float) -> None:
        message = image()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(int(seconds * 1e9), 10**9)
        before = bench.handled()
        bench.worker.offer(message)
        wait_for(lambda: bench.handled() == before + 1)

    for seconds in (10.0, 10.2, 10.1, 10.2, 10.3):  # late, and twice
        offer(seconds)
    assert bench.publishers.stamps == [10, 10, 10]
    assert bench.refused() == {
        "stamp is not newer than the last image's": 1,
        "stamp is equal to the last image's": 1,
    }
    offer(4.0)  # a bag that restarts
    offer(4.1)
    assert bench.publishers.stamps[3:] == [4, 4]
    offer(0.0)  # unstamped images have no order
    offer(0.0)
    offer(-3.0)
    assert bench.publishers.stamps[5:] == [0, 0, -3]
    assert bench.counts()["failed"] == 0


@pytest.mark.parametrize(("others", "parts"), [(0, 1), (3, 4)])
def test_a_camera_whose_images_replace_unread_ones_rests_for_the_others(
    others: int, parts: int
) -> None:
    turns = Turns()
    seats = [turns.seat() for _ in range(1 + others)]
    for seat in seats[1:]:
        with seat.turn():
            sleep(0.01)
    bench = Bench(seats[0])
    try:
        bench.worker.offer(image(stamp=1))
        wait_for(lambda: len(bench.fuser.asked) == 1)  # it holds the turn: nothing else is read
        bench.worker.offer(image(stamp=2))
        start, used = monotonic(), thread_time()
        for stamp in range(3, 33):
            receives_until = thread_time() + 0.004
            while thread_time() < receives_until:
                pass
            bench.worker.offer(image(stamp=stamp))
        wall, used = monotonic() - start, thread_time() - used
        assert bench.counts()["dropped"] == 30
        assert wall > 0.95 * parts * used, "the rest of the time is for the others"
    finally:
        bench.stop()


@pytest.mark.fault(
    "a bag of less than half a second in a loop",
    "each round starts a new sequence, as with longer bags",
)
def test_a_short_loop_is_fused_in_every_round(bench: Bench) -> None:
    bench.fuser.go.release(100)
    for number in range(12):
        message = image()
        message.header.stamp.sec, message.header.stamp.nanosec = 10, (number % 4) * 10**8
        bench.worker.offer(message)
        wait_for(lambda n=number: bench.handled() == n + 1)  # type: ignore[misc]
    assert bench.counts()["fused"] == 12


def test_an_image_behind_a_dropped_beginning_is_of_the_new_round(bench: Bench) -> None:
    def offer(tenths: int) -> None:
        message = image()
        message.header.stamp.sec, message.header.stamp.nanosec = 10, tenths * 10**8
        bench.worker.offer(message)

    bench.fuser.go.release()
    offer(0)
    wait_for(lambda: bench.counts()["fused"] == 1)
    offer(2)
    wait_for(lambda: len(bench.fuser.asked) == 2)
    offer(0)  # replaced while the previous one is fused
    offer(1)
    bench.fuser.go.release(2)
    wait_for(lambda: bench.counts()["fused"] == 3)
    assert not bench.refused()


@pytest.mark.parametrize("subscribed", ["camera_info", "debug"])
@pytest.mark.parametrize(("mode", "output"), [("fuse", "mag_image"), ("restore", "restored")])
def test_camera_info_and_debug_topics_alone_bring_frames(
    bench: Bench, subscribed: str, mode: Any, output: str
) -> None:
    bench.control.configure(mode, 0, 0.0)
    bench.publishers.topics = []
    bench.publishers.info_subscribed = subscribed == "camera_info"
    bench.debug.subscribed = subscribed == "debug"
    bench.worker.infos.add(CameraInfo(width=96, height=64))
    bench.fuser.go.release()
    bench.worker.offer(image(stamp=3))
    wait_for(lambda: bench.counts()["fused"] == 1)
    assert bench.fuser.asked == [{output}]
    assert (bench.publishers.infos[0] is not None) == (subscribed == "camera_info")


def test_a_stamp_of_the_future_has_no_age(bench: Bench) -> None:
    bench.fuser.go.release(2)
    now = time_ns()
    for number, offset in enumerate((-(10**9), 10**9)):
        message = image()
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(now + offset, 10**9)
        bench.worker.offer(message)
        wait_for(lambda n=number: bench.counts()["fused"] == n + 1)  # type: ignore[misc]
    snapshot = bench.worker.statistics.snapshot(monotonic())
    assert min(snapshot.age_ms.values()) > 1000


def test_a_defect_is_reported_with_its_place(bench: Bench) -> None:
    bench.fuser.error = SystemExit("of a library")
    bench.fuser.go.release(100)
    for number in range(1, RELOAD_AFTER + 1):
        bench.worker.offer(image(stamp=number))
        wait_for(partial(bench.has_failed, number))
    assert "SystemExit: of a library (test_worker.py:" in bench.worker.failure


@pytest.fixture
def benches() -> Any:
    """Three cameras that share networks; the first has its turn, the second is next."""
    turns = Turns()
    made = [Bench(turns.seat()) for _ in range(3)]
    for bench, state in zip(made, ("IN_TURN", "READY", "IN_LINE"), strict=True):
        bench.worker.offer(image(stamp=1))
        wait_for(lambda: bench.seat.state.name == state)  # noqa: B023
    yield made
    for bench in made:
        bench.fuser.go.release(100)
    for bench in made:
        bench.stop()


def test_with_the_turn_comes_the_newest_image(benches: list[Bench]) -> None:
    first, second, third = benches
    for stamp in (2, 3):
        third.worker.offer(image(stamp))
    first.fuser.go.release()
    wait_for(lambda: len(second.fuser.asked) == 1)
    second.fuser.go.release()
    wait_for(lambda: len(third.fuser.asked) == 1)
    third.fuser.go.release()
    wait_for(lambda: third.publishers.stamps == [3])
    assert third.counts()["dropped"] == 2


def test_what_receiving_its_images_takes_costs_a_camera_its_place(benches: list[Bench]) -> None:
    first, _, third = benches
    fourth = Bench(third.seat._turns.seat())
    fourth.worker.offer(image(stamp=1))  # due after the third's
    wait_for(lambda: fourth.seat.state.name == "IN_LINE")
    end = thread_time() + 0.05
    while thread_time() < end:  # as long as a flood of images takes this thread
        pass
    third.worker.offer(image(stamp=2))
    first.fuser.go.release()
    wait_for(lambda: fourth.seat.state.name == "READY")
    assert third.seat.state.name == "IN_LINE"
    for bench in benches:
        bench.fuser.go.release(100)
    fourth.stop()


def test_a_camera_that_waits_in_line_can_be_stopped(benches: list[Bench]) -> None:
    _, _, third = benches
    third.worker.stop()
    assert third.fuser.asked == []


def test_a_camera_that_is_stopped_as_it_becomes_first_leaves_the_line() -> None:
    seat: Any = Turns().seat()
    bench = Bench(seat)
    wait = seat.wait

    def first_and_stopped(due: float, given_up: Callable[[], bool]) -> None:
        wait(due, given_up)
        threading.Thread(target=bench.worker.stop).start()
        wait_for(given_up)

    seat.wait = first_and_stopped
    bench.worker.offer(image(stamp=1))
    bench.thread.shutdown()
    assert bench.fuser.asked == []
    assert seat.state.name == "AWAY"


def test_the_waiting_for_others_is_no_cost_of_a_frame(benches: list[Bench]) -> None:
    first, second, _ = benches
    sleep(0.3)
    costs: list[float] = []
    second.control.done = lambda plan, cost_s, stages: costs.append(cost_s)  # type: ignore
    first.fuser.go.release()
    second.fuser.go.release()
    wait_for(lambda: bool(costs))
    assert costs[0] < 0.2
