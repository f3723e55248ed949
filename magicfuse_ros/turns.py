# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Cameras take turns at what only a few of them can use at a time: the cores, or the GPU.

term      meaning
turn      the time for which a camera's image is in the networks; `at_once` cameras have theirs
          at the same time
start     of an image: the time that its camera has used, counted from when others wanted turns too
due       when the image's result is wanted: arrival + deadline of its camera

1. A camera whose image is due waits in line. It takes the image only when it is first in line,
   so that it gets the newest one, and prepares it while another camera has its turn.
2. The camera with the lowest start is first. No camera can therefore get more than its share
   while others wait: all get the same time, whatever their rate or frame time, and what one
   leaves goes to the rest (start-time fair queueing). Cameras that are at most half a frame
   apart count as equal; the one that is due earliest is first. The time spent receiving images
   counts as use, so a camera that floods gets fewer turns.
3. A camera that takes long to prepare holds nobody up: while a turn is free, the next camera may
   prepare, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from math import exp
from time import monotonic
from typing import Generic, TypeVar

from magicfuse_ros.deadline import Share

K = TypeVar("K")

_EQUAL = 0.5  # of a frame
_USE_S = 2.0  # seconds over which the use of the turns is averaged
_ACTIVE = 0.001  # a camera that uses no more than this does not count


@dataclass
class _Place:
    start: float
    due: float


class FairOrder(Generic[K]):
    """Tells who is first in line, from what each of them has used. Reads no clock."""

    def __init__(self) -> None:
        self._line: dict[K, _Place] = {}
        self._in_turn: set[K] = set()
        self._finished: dict[K, float] = {}
        self._costs: dict[K, float] = {}
        self._lowest = 0.0  # lowest start in the line when the latest turn began

    def enter(self, who: K, due: float) -> None:
        """Stand in line with an image; `due` in seconds."""
        self._line[who] = _Place(max(self._lowest, self._finished.get(who, 0.0)), due)

    def first(self, among: Collection[K]) -> K:
        """Return who of these, all of them in line, is first."""
        places = self._line
        lowest = min(places[who].start for who in among)
        equal = [w for w in among if places[w].start <= lowest + _EQUAL * self._costs.get(w, 0.0)]
        return min(equal, key=lambda who: places[who].due)

    def begin(self, who: K) -> None:
        """Record that the turn of `who` begins."""
        # Those in their turn count with what they will have used by its end, as far as known.
        starts = (
            place.start + (self._costs.get(one, 0.0) if one in self._in_turn else 0.0)
            for one, place in self._line.items()
        )
        self._lowest = max(self._lowest, min(starts))
        self._in_turn.add(who)

    def end(self, who: K, seconds: float) -> None:
        """Record that the turn of `who` has ended after `seconds`."""
        self._in_turn.discard(who)
        self._finished[who] = self._line.pop(who).start + seconds
        self._costs[who] = seconds

    def charge(self, who: K, seconds: float) -> None:
        """Count seconds that `who` has used besides its turns."""
        if who in self._line:
            self._line[who].start += seconds
        else:
            self._finished[who] = max(self._lowest, self._finished.get(who, 0.0)) + seconds

    def leave(self, who: K) -> None:
        """Leave the line without a turn."""
        if (place := self._line.pop(who, None)) is not None:
            self._finished[who] = place.start  # including what it was charged in line

    def forget(self, who: K) -> None:
        """Forget what `who`, who is not in line, has used."""
        self._finished.pop(who, None)
        self._costs.pop(who, None)


class _State(Enum):
    AWAY = auto()
    IN_LINE = auto()
    PREPARING = auto()
    READY = auto()
    IN_TURN = auto()


class Turns:
    """The line of the cameras' threads, and the turns; each camera has a `Seat`.

    Attributes:
        at_once: how many cameras may have their turn at the same time.
        lock: guards the rest, which only the seats use.
        order: who is first in line.
        seats: of all cameras.
    """

    def __init__(self, at_once: int = 1) -> None:
        self.at_once = at_once
        self.lock = threading.Lock()
        self.order: FairOrder[Seat] = FairOrder()
        self.seats: list[Seat] = []

    def seat(self) -> Seat:
        """Let one more camera take part."""
        made = Seat(self)
        with self.lock:
            self.seats.append(made)
        return made

    def go_on(self) -> None:
        """Let those whose time has come continue."""
        free = self.at_once - sum(seat.state is _State.IN_TURN for seat in self.seats)
        ready = [seat for seat in self.seats if seat.state is _State.READY]
        if ready and free:
            first = self.order.first(ready)
            self.order.begin(first)
            first.enter(_State.IN_TURN)
            free -= 1
        ahead = any(seat.state in (_State.PREPARING, _State.READY) for seat in self.seats)
        line = [seat for seat in self.seats if seat.state is _State.IN_LINE]
        if line and (free or not ahead):
            self.order.first(line).enter(_State.PREPARING)


class Seat:
    """One camera's place. One thread at a time uses it, except for `wake`, `share` and `charge`."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        # One for each seat: a thread that wakes for nothing takes Python's lock from the others.
        self._changed = threading.Condition(turns.lock)
        self.state = _State.AWAY
        self._use = 0.0  # part of the time, 0 to 1, as of `_used_at`
        self._used_at = 0.0

    def enter(self, state: _State) -> None:
        """Change the state and wake the thread that waits for it; `Turns` calls it."""
        self.state = state
        self._changed.notify_all()

    def wait(self, due: float, given_up: Callable[[], bool]) -> bool:
        """Wait until this camera may take an image and prepare it.

        Args:
            due: when its result is wanted, seconds of the steady clock.
            given_up: ends the waiting once it is true; call `wake` then.

        Returns:
            False if it was given up.
        """
        turns = self._turns
        with self._changed:
            turns.order.enter(self, due)
            self.state = _State.IN_LINE
            turns.go_on()
            while self.state is _State.IN_LINE and not given_up():
                self._changed.wait()
            if not given_up():
                return True
            self._leave()
            return False

    @contextmanager
    def turn(self) -> Iterator[float]:
        """Wait for the turn, hold it during the block, and yield the seconds waited."""
        turns = self._turns
        with self._changed:
            asked = monotonic()
            if self.state is _State.AWAY:
                turns.order.enter(self, asked)
            self.state = _State.READY
            turns.go_on()
            while self.state is not _State.IN_TURN:
                self._changed.wait()
            began = monotonic()
        try:
            yield began - asked
        finally:
            with turns.lock:
                now = monotonic()
                turns.order.end(self, now - began)
                self.used(now, now - began)
                self.state = _State.AWAY
                turns.go_on()

    def leave(self) -> None:
        """Let others prepare if the image did not get its turn."""
        with self._turns.lock:
            if self.state is not _State.AWAY:
                self._leave()

    def _leave(self) -> None:
        self._turns.order.leave(self)
        self.state = _State.AWAY
        self._turns.go_on()

    def charge(self, seconds: float) -> None:
        """Count seconds of the cores that this camera has used besides its turns."""
        with self._turns.lock:
            if self in self._turns.seats:
                self._turns.order.charge(self, seconds)

    def reset(self) -> None:
        """Forget what this camera has used: loading networks must not cost it later turns."""
        with self._turns.lock:
            self._turns.order.forget(self)
            self._use = 0.0

    def wake(self) -> None:
        """Make `wait` check again whether it was given up."""
        with self._changed:
            self._changed.notify_all()

    def share(self) -> Share:
        """Return for what part of the time this camera may have its turn.

        It is what the others leave, but at least an equal part.
        """
        now, turns = monotonic(), self._turns
        with turns.lock:
            uses = [one.use(now) for one in turns.seats if one is not self]
        others = [min(use, 1.0) for use in uses if use > _ACTIVE]
        part = max(turns.at_once / (1 + len(others)), turns.at_once - sum(others))
        return Share(min(part, 1.0), len(others))

    def close(self) -> None:
        """Give the seat up."""
        turns = self._turns
        with turns.lock:
            if self in turns.seats:
                turns.seats.remove(self)
            self._leave()
            turns.order.forget(self)

    def use(self, now: float) -> float:
        """Return for what part of the last seconds this camera had its turn."""
        return self._use * exp((self._used_at - now) / _USE_S)

    def used(self, now: float, seconds: float) -> None:
        """Record a turn."""
        self._use, self._used_at = self.use(now) + seconds / _USE_S, now
