# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Cameras in line for the networks: who is first, with a clock of the test's; then with threads."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic, sleep
from unittest.mock import Mock

import pytest

from magicfuse_ros.turns import FairOrder, Seat, Turns


@dataclass
class Camera:
    """Sends an image each `period`, whose turn takes `cost`; of two images the newer one waits.

    To receive it is charged with `receiving`.
    """

    period: float
    cost: float
    deadline: float = 0.1
    receiving: float = 0.0
    sent: int = 0
    taken: float = -1.0  # when the image that it had its latest turn with was sent
    ages: list[float] = field(default_factory=list)

    @property
    def newest(self) -> float:
        return (self.sent - 1) * self.period

    @property
    def used(self) -> float:
        return len(self.ages) * self.cost


def drive(seconds: float, at_once: int = 1, /, **cameras: Camera) -> None:
    """Let the cameras take turns, in seconds of a clock that stands still between two events."""
    order: FairOrder[str] = FairOrder()
    line: set[str] = set()
    ends: dict[str, float] = {}
    now = 0.0
    while now < seconds:
        for name in [name for name, end in ends.items() if end <= now]:
            order.end(name, cameras[name].cost)
            del ends[name]
        for name, camera in cameras.items():
            while camera.sent * camera.period <= now:
                camera.sent += 1
                order.charge(name, camera.receiving)
            if camera.newest > camera.taken and name not in line and name not in ends:
                order.enter(name, camera.newest + camera.deadline)
                line.add(name)
        while line and len(ends) < at_once:
            first = order.first(line)
            order.begin(first)
            line.discard(first)
            camera = cameras[first]
            camera.taken, ends[first] = camera.newest, now + camera.cost
            camera.ages.append(ends[first] - camera.newest)
        arrivals = [camera.sent * camera.period for camera in cameras.values()]
        now = min([*arrivals, *ends.values()])


def test_a_flood_takes_only_what_the_others_leave() -> None:
    flood = Camera(0.005, 0.021, deadline=0.005)  # whose images are always the most urgent
    others = [Camera(0.1 + i * 1e-4, 0.021) for i in range(3)]
    drive(30, flood=flood, a=others[0], b=others[1], c=others[2])
    for camera in others:
        assert len(camera.ages) >= camera.sent - 1
        assert max(camera.ages) <= 4.5 * 0.021  # each of the others goes first once, at most
    assert flood.used == pytest.approx(30 * (1 - 3 * 0.21), rel=0.05)


def test_cameras_that_all_want_more_get_the_same_time() -> None:
    cameras = {
        "flood": Camera(0.005, 0.02, deadline=0.005),
        "fast": Camera(0.03, 0.02, deadline=0.03),
        "slow network": Camera(0.1, 0.06),
    }
    drive(60, **cameras)
    for name, camera in cameras.items():
        assert camera.used == pytest.approx(20, rel=0.05), name


def test_a_flood_pays_with_turns_for_what_receiving_it_takes() -> None:
    """It is charged with 0.2 s in a second: it has that much less than the others."""
    flood = Camera(0.005, 0.02, deadline=0.005, receiving=0.001)
    others = [Camera(0.02, 0.02, receiving=0.0) for _ in range(3)]
    drive(60, flood=flood, a=others[0], b=others[1], c=others[2])
    assert flood.used == pytest.approx(60 * 0.1, rel=0.05)
    for camera in others:
        assert camera.used == pytest.approx(60 * 0.3, rel=0.05)


def test_a_charge_stays_when_the_image_that_waited_is_refused() -> None:
    order: FairOrder[str] = FairOrder()
    order.enter("flood", 0.0)
    order.charge("flood", 1.0)
    order.leave("flood")
    order.enter("flood", 0.0)
    order.enter("calm", 5.0)
    assert order.first({"flood", "calm"}) == "calm"


def test_what_a_camera_has_used_can_be_forgotten() -> None:
    order: FairOrder[str] = FairOrder()
    order.charge("loading", 5.0)
    order.forget("loading")
    order.enter("calm", 2.0)
    order.enter("loading", 1.0)
    assert order.first({"calm", "loading"}) == "loading"

    turns = Turns()
    loading, calm = turns.seat(), turns.seat()
    with loading.turn():
        sleep(0.01)
    assert calm.share().others == 1
    loading.reset()
    assert calm.share().others == 0


def test_a_camera_that_is_gone_is_not_charged() -> None:
    turns = Turns()
    gone = turns.seat()
    gone.close()
    gone.charge(5.0)  # its thread may still receive an image
    kept = weakref.ref(gone)
    del gone
    assert kept() is None


def test_with_two_turns_all_get_the_same_time_and_a_flood_what_is_left() -> None:
    greedy = {
        "flood": Camera(0.005, 0.02, deadline=0.005),
        "fast": Camera(0.025, 0.02, deadline=0.025),
        "slow network": Camera(0.08, 0.06),
    }
    drive(60, 2, **greedy)  # all want 45 s or more
    for name, camera in greedy.items():
        assert camera.used == pytest.approx(40, rel=0.08), name
    flood, flood2 = (Camera(0.005, 0.04, deadline=0.005) for _ in range(2))
    calm = Camera(0.1, 0.04)
    drive(30, 2, flood=flood, flood2=flood2, calm=calm)
    assert len(calm.ages) >= calm.sent - 1 and max(calm.ages) <= 2.5 * 0.04


def test_who_comes_late_gets_no_credit_from_a_long_turn_of_another() -> None:
    """A turn of 1 s is on; beside it, one has used 0.5 s when another comes for the first time."""
    order: FairOrder[str] = FairOrder()
    order.enter("slow", 0.0)
    order.begin("slow")
    order.end("slow", 1.0)
    order.enter("slow", 1.0)
    order.begin("slow")
    for number in range(25):
        order.enter("fast", number)
        order.begin("fast")
        order.end("fast", 0.02)
    order.enter("new", 100.0)
    taken = []
    for number in range(10):
        order.enter("fast", 200.0 + number)
        taken.append(order.first(["fast", "new"]))
        order.begin(taken[-1])
        order.end(taken[-1], 0.02)
        if taken[-1] == "new":
            order.enter("new", 100.0 + number)
        else:
            continue
        order.leave("fast")
    assert 4 <= taken.count("fast") <= 6, taken


def test_who_was_away_has_saved_nothing_up() -> None:
    order: FairOrder[str] = FairOrder()
    line: set[str] = set()
    taken = []
    for turn in range(110):
        for name in ("busy", "late") if turn >= 100 else ("busy",):
            if name not in line:
                order.enter(name, turn)
                line.add(name)
        taken.append(order.first(line))
        order.begin(taken[-1])
        order.end(taken[-1], 0.02)
        line.discard(taken[-1])
    assert taken[100:].count("late") in (5, 6)


def test_among_equals_the_earliest_due_is_first() -> None:
    order: FairOrder[str] = FairOrder()
    for cost in (0.020, 0.022):  # not the one that happened to be cheaper last time
        for name in ("a", "b"):
            order.enter(name, 0.0)
            order.begin(name)
            order.end(name, cost if name == "a" else 0.021)
    order.enter("a", 5.0)
    order.enter("b", 4.0)
    assert order.first(["a", "b"]) == "b"
    order.leave("b")
    order.enter("b", 6.0)
    assert order.first(["a", "b"]) == "a"


class Thread:
    """A camera's thread, which goes as far as the test lets it."""

    def __init__(self, turns: Turns, pool: ThreadPoolExecutor, name: str, log: list[str]) -> None:
        self.seat = turns.seat()
        self.prepared, self.done = threading.Event(), threading.Event()
        self.stopped = False
        self._pool, self._name, self._log = pool, name, log

    def image(self, due: float) -> None:
        """Begin with an image."""
        self.end = self._pool.submit(self._work, due)

    def _work(self, due: float) -> None:
        if not self.seat.wait(due, lambda: self.stopped):
            self._log.append(f"{self._name} gave up")
            return
        self._log.append(f"{self._name} prepares")
        assert self.prepared.wait(30)
        with self.seat.turn():
            self._log.append(f"{self._name} begins")
            assert self.done.wait(30)
            self._log.append(f"{self._name} ends")


@dataclass
class Street:
    cameras: list[Thread]
    log: list[str]

    def reaches(self, *lines: str, last: int = 0) -> bool:
        """Wait until the log holds these lines; the `last` ones may be in any order."""
        there = len(lines) - last
        end = monotonic() + 30
        while len(self.log) < len(lines) and monotonic() < end:
            sleep(0.001)
        sleep(0.02)  # and nothing more comes
        ordered = self.log[:there] == list(lines[:there])
        return ordered and sorted(self.log[there:]) == sorted(lines[there:])


@pytest.fixture
def at_once() -> int:
    return 1


@pytest.fixture
def street(at_once: int) -> Iterator[Street]:
    log: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        turns = Turns(at_once)
        made = Street([Thread(turns, pool, name, log) for name in "abc"], log)
        try:
            yield made
        finally:
            for camera in made.cameras:
                camera.stopped = True
                camera.prepared.set()
                camera.done.set()
                camera.seat.wake()


def test_one_prepares_while_another_has_its_turn_and_the_rest_wait(street: Street) -> None:
    a, b, c = street.cameras
    a.prepared.set()
    a.image(due=1)
    begun = ["a prepares", "a begins"]
    assert street.reaches(*begun), street.log
    b.prepared.set()
    b.image(due=3)
    assert street.reaches(*begun, "b prepares"), street.log
    c.prepared.set()
    c.image(due=2)  # more urgent, but b has its image
    assert street.reaches(*begun, "b prepares"), street.log
    a.done.set()
    c.done.set()
    then = [*begun, "b prepares", "a ends"]
    # At the same time, by two threads: b begins, and c prepares.
    assert street.reaches(*then, "b begins", "c prepares", last=2), street.log
    b.done.set()
    c.end.result(30)
    assert street.log[6:] == ["b ends", "c begins", "c ends"], street.log


def test_a_change_wakes_only_the_thread_that_it_is_for(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = street.cameras
    waits = Mock(wraps=c.seat._changed.wait)
    monkeypatch.setattr(c.seat._changed, "wait", waits)
    a.prepared.set()
    a.image(due=1)
    begun = ["a prepares", "a begins"]
    assert street.reaches(*begun), street.log
    b.image(due=2)
    assert street.reaches(*begun, "b prepares"), street.log
    c.image(due=3)
    b.prepared.set()  # b waits for the turn of a, and c for b
    assert street.reaches(*begun, "b prepares"), street.log
    a.done.set()
    then = [*begun, "b prepares", "a ends"]
    assert street.reaches(*then, "b begins", "c prepares", last=2), street.log
    assert waits.call_count == 1


@pytest.mark.parametrize("at_once", [2])
def test_two_have_their_turn_at_the_same_time_and_a_third_prepares(street: Street) -> None:
    a, b, c = street.cameras
    begun: list[str] = []
    for name, camera in (("a", a), ("b", b)):
        camera.prepared.set()
        camera.image(due=1)
        begun += [f"{name} prepares", f"{name} begins"]
        assert street.reaches(*begun), street.log
    c.prepared.set()
    c.image(due=1)
    assert street.reaches(*begun, "c prepares"), street.log
    b.done.set()
    assert street.reaches(*begun, "c prepares", "b ends", "c begins"), street.log


def test_one_that_prepares_for_ever_holds_nobody_up(street: Street) -> None:
    a, b, c = street.cameras
    a.image(due=1)
    assert street.reaches("a prepares"), street.log
    for camera in (b, c):
        camera.prepared.set()
        camera.done.set()
        camera.image(due=2)
        camera.end.result(30)
    assert street.log[-1] == "c ends"


def test_waiting_in_line_can_be_given_up(street: Street) -> None:
    a, b, c = street.cameras
    a.prepared.set()
    a.image(due=1)
    assert street.reaches("a prepares", "a begins")
    b.image(due=2)
    assert street.reaches("a prepares", "a begins", "b prepares")
    c.image(due=3)
    c.stopped = True
    c.seat.wake()
    c.end.result(30)
    assert street.log[-1] == "c gave up"


def test_a_failure_ends_the_turn_and_a_refused_image_the_preparation() -> None:
    turns = Turns()
    failing, refusing, other = (turns.seat() for _ in range(3))
    assert failing.wait(1.0, lambda: False)
    with pytest.raises(RuntimeError), failing.turn():
        raise RuntimeError
    assert refusing.wait(1.0, lambda: False)
    refusing.leave()
    with other.turn() as waited:
        assert waited < 1


def test_a_share_is_what_others_leave_and_no_less_than_an_equal_part() -> None:
    def used(*parts: float, at_once: int = 1) -> list[Seat]:
        turns = Turns(at_once)
        seats = [turns.seat() for _ in parts]
        for seat, part in zip(seats, parts, strict=True):
            seat.used(monotonic(), part * 2.0)  # of the 2 s over which it is averaged
        return seats

    alone, silent = used(0.9, 0.0)
    assert (alone.share().part, alone.share().others) == (1.0, 0)
    assert silent.share().part == pytest.approx(0.5)  # at worst, it gets as much as the other
    seats = used(0.2, 0.2, 0.2, 0.2)
    assert seats[0].share().part == pytest.approx(0.4, abs=0.05)
    assert seats[0].share().others == 3
    seats[3].close()
    assert seats[0].share().part == pytest.approx(0.6, abs=0.05)
    seats = used(0.2, 0.9, 0.9, at_once=2)
    assert seats[0].share().part == pytest.approx(2 / 3)  # of one of two turns
    assert used(0.5, 0.5, at_once=2)[0].share().part == 1.0
