# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Deadline control: plans the next frame from the costs of the last ones.

    term        meaning
    period      the camera's period: mean interval of the arrivals
    deadline    target_period; if that is 0, the camera's period
    plan        mode, K and stride of the next frame; every stride-th image is fused
    rungs       modes and K from best to cheapest: falling K, then in `auto` only the restored image

    1. A frame costs fixed + K x step: step is ikr + ckg + mkf of one step, fixed is all the rest
       from taking the message to the last publication.
    2. A rung fits if its cost is at most `FITS` of the deadline. If the current rung does not fit,
       the plan changes at once to the best one that does, or to the last one if none does.
    3. The plan steps back up one rung at a time, once the better rung has fitted into `RAISES` of
       the deadline for `patience` frames. `patience` doubles if a raise did not last, so that a
       wrong estimate (the stage times of an asynchronous backend are not true parts) cannot make
       the plan flap.
    4. If even the last rung is too slow, images are skipped: the stride is the whole number
       nearest to cost / period. With a stride below cost / period the node never rests, and an
       image waits for at most one period, because only the newest one waits. With a stride above
       it nothing waits, but frames are lost. Halfway between two strides, both give the same
       images per second divided by age.
    5. Cameras that share the networks take turns. A frame may then cost the camera's share of the
       deadline (the part of a turn's time that the others leave, see `Share`), and the stride is
       the whole number nearest to cost / (share x period).

The rung is chosen by the second largest of the latest costs, so that one slow frame changes nothing
and two do. The stride is chosen by their median, so that a slow frame delays only one image. The
period comes from arrivals, not from stamps: a bag that plays faster keeps its stamps, but the node
must cope with what arrives.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Literal

from magicfuse_ros.errors import MagicFuseError

FITS = 0.95
RAISES = 0.80
COSTS = 10  # frames in an estimate
FEWEST_COSTS = 3
PATIENCE = 20  # frames
MOST_PATIENCE = 640
_NEARER = 0.6  # periods by which a stride may be off; more than half, to prevent flapping
_INTERVALS = 30
_FEWEST_INTERVALS = 4
# This many intervals in a row, each over this many periods, mean a slower camera.
_SLOWER_INTERVALS, _SLOWER = 5, 2.0
_AWAY_S = 1.0

Mode = Literal["fuse", "restore", "auto"]
FrameMode = Literal["fuse", "restore"]
_Rung = tuple[FrameMode, int]


@dataclass(frozen=True)
class Plan:
    """What to do with the next frame; one of every `stride` images is fused."""

    mode: FrameMode
    steps: int
    stride: int


@dataclass(frozen=True)
class Share:
    """A camera's share of networks that it shares with others.

    Attributes:
        part: fraction of the time, above 0 and up to 1: what the others leave of the turns that
            can take place at the same time, but at least an equal part.
        others: number of other cameras that use the networks.
    """

    part: float = 1.0
    others: int = 0

    def __str__(self) -> str:
        cameras = "camera" if self.others == 1 else "cameras"
        return f"{100 * self.part:.0f} % of the time, beside {self.others} other {cameras}"


@dataclass(frozen=True)
class Status:
    """The control at one moment.

    Attributes:
        plan: the current plan.
        why: what led to it, and the camera's share of the time if it has to share.
        period_s: the camera's period; None before some images arrived.
        deadline_s: None as long as neither target_period nor the camera's period is known.
    """

    plan: Plan
    why: str
    period_s: float | None
    deadline_s: float | None


class CameraPeriod:
    """The mean interval of the latest arrivals; a pause of the camera does not count.

    If the camera becomes much slower, for example after a burst, a few images are enough to notice:
    the many short intervals before them are dropped. A faster camera soon replaces the old
    intervals anyway.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._times: deque[float] = deque(maxlen=_INTERVALS + 1)
        self._paused = False

    def arrived(self, now: float) -> None:
        """Record the arrival of an image at `now`, seconds of a steady clock."""
        if self._times:
            limit = max(_AWAY_S, 5 * (self.seconds or 0))
            pause = now - self._times[-1] > limit
            # One long interval is a pause; two are a slow camera.
            if pause and not self._paused:
                self._times.clear()
            self._paused = pause
        self._times.append(now)
        self._forget_faster()
        intervals = len(self._times) - 1
        if intervals >= _FEWEST_INTERVALS:
            self.seconds = max((self._times[-1] - self._times[0]) / intervals, 1e-4)

    def _forget_faster(self) -> None:
        latest = list(self._times)[-_SLOWER_INTERVALS - 1 :]
        if self.seconds is None or len(latest) <= _SLOWER_INTERVALS:
            return
        if min(later - one for one, later in pairwise(latest)) > _SLOWER * self.seconds:
            self._times.clear()
            self._times.extend(latest)


@dataclass(frozen=True)
class _Cost:
    """The cost of one frame, in seconds; `step` and `ikr` for one of its K steps."""

    fixed: float
    step: float
    ikr: float
    encoder: float

    def of(self, steps: int) -> float:
        return self.fixed + steps * self.step


class _Costs:
    """Costs of the latest frames of one mode."""

    def __init__(self) -> None:
        self.latest: deque[_Cost] = deque(maxlen=COSTS)

    def estimate(self, steps: int) -> float:
        return sorted(cost.of(steps) for cost in self.latest)[-2]

    def usual(self, steps: int) -> float:
        return median(cost.of(steps) for cost in self.latest)

    def restoring(self, steps: int) -> float:
        """Estimate the cost with ikr alone; too high by the cost of networks it does not need."""
        return sorted(cost.fixed + steps * cost.ikr for cost in self.latest)[-2]

    def fusing(self, steps: int, then: _Costs) -> float:
        """Estimate a fused frame from the costs in `then` and the speed of the shared networks."""
        probes = sorted(cost.encoder + cost.ikr for cost in self.latest)
        pairs = [(cost.of(steps), cost.encoder + cost.ikr) for cost in then.latest]
        ratios = [cost / probe for cost, probe in pairs if probe]
        return median(ratios) * probes[-2] if ratios and probes[-2] else then.estimate(steps)


class DeadlineControl:
    """Chooses plans. `due` may be called from another thread than the rest."""

    def __init__(self, grids: Collection[int], default_steps: int) -> None:
        """Start with K = `default_steps`, which is one of `grids`.

        More steps are used only on request: they are not worth their cost by default.
        """
        self._grids = sorted(grids, reverse=True)
        self._usual = [k for k in self._grids if k <= default_steps]
        self._lock = threading.Lock()
        self._period = CameraPeriod()
        self._target = 0.0
        self._base = 1  # stride that the target period asks for
        self._mode: Mode = "fuse"
        self._steps = 0
        self._rungs: list[_Rung] = [("fuse", k) for k in self._usual]
        self._plan = Plan("fuse", default_steps, 1)
        self._why = "start"
        self._costs = _Costs()
        self._fusing: _Costs | None = None  # as of when fusing was given up
        self._patience = PATIENCE
        self._calm = 0
        self._since_raise: int | None = None
        self._waiting = 0
        self._begun: float | None = None
        self._share = Share()

    def configure(self, mode: Mode, steps: int, target_period: float) -> None:
        """Apply parameters; the current plan stays if they allow it.

        Args:
            mode: `auto` falls back from fusing to restoring alone, and comes back.
            steps: K; 0 lets the deadline choose.
            target_period: seconds; 0 takes the camera's period.

        Raises:
            MagicFuseError: if there is no grid for K; nothing has changed then.
        """
        if steps and steps not in self._grids:
            raise MagicFuseError(f"steps is {steps}; expected 0 or one of {sorted(self._grids)}")
        with self._lock:
            self._mode, self._steps, self._target = mode, steps, target_period
            self._patience = PATIENCE
            self._set_base()
            self._set_rungs(restore_wanted=True)

    def due(self, now: float) -> float:
        """Record an image that arrived at `now` (steady clock).

        Returns:
            When to fuse it: `now`. For an image to skip: the time by which the camera should have
            sent a later one.
        """
        with self._lock:
            self._period.arrived(now)
            self._set_base()
            self._set_stride()
            self._waiting += 1
            if self._begun is not None and self._waiting < self._plan.stride:
                later = self._begun + (self._plan.stride + 0.5) * (self._period.seconds or 0.0)
                if later > now:
                    return later
            self._waiting = 0
            self._begun = now
            return now

    def plan(self, restore_wanted: bool, share: Share | None = None) -> Plan:
        """Return the plan for a frame.

        Args:
            restore_wanted: whether `auto` has something to fall back to.
            share: this camera's share of the networks; None for all.
        """
        with self._lock:
            self._share = share or Share()
            self._set_rungs(restore_wanted)
            return self._plan

    def done(self, plan: Plan, cost_s: float, stages_ms: Mapping[str, float]) -> None:
        """Learn from a frame.

        Args:
            plan: the plan of the frame.
            cost_s: seconds from taking its message to its last publication, without waiting for
                other cameras.
            stages_ms: as in `FusedFrame`.
        """
        with self._lock:
            if (plan.mode, plan.steps) != (self._plan.mode, self._plan.steps):
                return
            ikr, ckg, mkf = (stages_ms.get(name, 0.0) / 1e3 for name in ("ikr", "ckg", "mkf"))
            step = (ikr + ckg + mkf) / plan.steps
            fixed = max(cost_s - plan.steps * step, 0.0)
            encoder = stages_ms.get("encoder", 0.0) / 1e3
            self._costs.latest.append(_Cost(fixed, step, ikr / plan.steps, encoder))
            if self._since_raise is not None:
                self._since_raise += 1
                if self._since_raise > 2 * PATIENCE:
                    self._since_raise, self._patience = None, PATIENCE
            if len(self._costs.latest) >= FEWEST_COSTS and self._budget() is not None:
                self._choose()
            self._set_stride()

    def status(self) -> Status:
        """Return the current plan and the reason for it."""
        with self._lock:
            period = self._period.seconds
            why = f"{self._why}; may use {self._share}" if self._share.others else self._why
            return Status(self._plan, why, period, self._target or period)

    def _budget(self) -> float | None:
        period = self._period.seconds
        budget = self._target or period
        if budget is None:
            return None
        if self._target and period is not None and self._target > period:
            budget = min(self._target, self._base * period)
        return self._share.part * budget

    def _set_base(self) -> None:
        if not self._target or self._period.seconds is None:
            self._base = 1
            return
        ratio = self._target / self._period.seconds
        if abs(ratio - self._base) > _NEARER:
            self._base = max(1, round(ratio))

    def _set_stride(self) -> None:
        period, plan = self._period.seconds, self._plan
        stride = self._base
        if period is not None and len(self._costs.latest) >= FEWEST_COSTS:
            cost = self._costs.usual(plan.steps)
            periods = cost / (self._share.part * period)
            near = abs(periods - plan.stride) <= _NEARER
            stride = max(self._base, plan.stride if near else round(periods))
            if stride != plan.stride:
                self._why = (
                    f"{plan.mode} with K = {plan.steps} takes {cost * 1e3:.0f} ms, "
                    f"a period of the camera {period * 1e3:.0f} ms"
                )
        self._plan = replace(plan, stride=stride)

    def _set_rungs(self, restore_wanted: bool) -> None:
        grids = [self._steps] if self._steps else self._usual
        mode: FrameMode = "restore" if self._mode == "restore" else "fuse"
        rungs: list[_Rung] = [(mode, k) for k in grids]
        if self._mode == "auto" and restore_wanted:
            rungs.append(("restore", grids[-1]))
        if rungs == self._rungs:
            return
        self._rungs = rungs
        plan = self._plan
        if (plan.mode, plan.steps) not in rungs:
            steps = plan.steps if plan.steps in grids else grids[-1]
            self._switch(Plan(mode, steps, plan.stride), "parameters or subscribers changed")

    def _choose(self) -> None:
        present = self._rungs.index((self._plan.mode, self._plan.steps))
        needed = self._best(FITS)
        if needed > present:
            if self._since_raise is not None:
                self._patience = min(2 * self._patience, MOST_PATIENCE)
            self._since_raise = None
            self._take(needed, self._words(*self._rungs[present], "but has"))
        elif self._best(RAISES) >= present or len(self._costs.latest) < COSTS:
            self._calm = 0
        else:
            self._calm += 1
            if self._calm >= self._patience:
                self._since_raise = 0
                self._take(present - 1, self._words(*self._rungs[present - 1], "and has"))

    def _best(self, share: float) -> int:
        """Return the best rung that costs at most `share` of the deadline, or the last one."""
        budget = self._budget()
        assert budget is not None
        for rung, (mode, steps) in enumerate(self._rungs):
            cost = self._predict(mode, steps)
            if cost is None or cost <= share * budget:  # unknown, so try it
                return rung
        return len(self._rungs) - 1

    def _take(self, rung: int, why: str) -> None:
        mode, steps = self._rungs[rung]
        self._switch(Plan(mode, steps, self._base), why)

    def _predict(self, mode: FrameMode, steps: int) -> float | None:
        if mode == self._plan.mode:
            return self._costs.estimate(steps)
        if mode == "restore":
            return self._costs.restoring(steps)
        if self._fusing is None:
            return None
        return self._costs.fusing(steps, self._fusing)

    def _words(self, mode: FrameMode, steps: int, link: str) -> str:
        cost = self._predict(mode, steps)
        budget = self._budget() or 0.0
        taken = "an unknown time" if cost is None else f"{cost * 1e3:.0f} ms"
        return f"{mode} with K = {steps} takes {taken} {link} {budget * 1e3:.0f} ms" + (
            f", {self._share.part:.0%} of its deadline" if self._share.others else ""
        )

    def _switch(self, plan: Plan, why: str) -> None:
        if (plan.mode, plan.steps) != (self._plan.mode, self._plan.steps):
            if self._plan.mode == "fuse" and plan.mode == "restore":
                known = len(self._costs.latest) >= FEWEST_COSTS
                self._fusing = self._costs if known else None
            self._costs = _Costs()  # only costs measured with the present plan are trusted
        self._plan, self._why = plan, why
        self._calm = 0
