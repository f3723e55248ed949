# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What `fuse_node` reports on /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from magicfuse_ros.deadline import Status
from magicfuse_ros.input_checks import Measures
from magicfuse_ros.ros.diagnostics import Diagnosis, Losses, refusal_values
from magicfuse_ros.ros.statistics import Snapshot, silent_after_s

STUCK_S = 5.0
AHEAD_S = 0.1  # TF refuses to look into the future
BEHIND_S = 2.0  # most cameras need a tenth of it
_STUCK_COSTS = 3  # a slow machine may take this many times the cost of a frame


@dataclass(frozen=True)
class Activity:
    """The node since activation: its counts, plan, latest input and input warnings."""

    snapshot: Snapshot
    control: Status
    measures: Measures | None
    warnings: list[str]


class FuseDiagnostics:
    """Turns the activity of the node into a diagnosis."""

    def __init__(self) -> None:
        self._losses = Losses()

    def diagnosis(
        self,
        failure: str,
        settings: Mapping[str, str],
        problems: Sequence[str],
        activity: Activity,
        simulated: bool = False,
    ) -> Diagnosis:
        """Return what to report.

        Args:
            failure: why no image comes through; empty otherwise.
            settings: settings in use: bundle, backend, mode, tau, image_topic and more.
            problems: reasons why no input arrives or why results are not published.
            activity: since activation.
            simulated: the node's clock is /clock, which moves in steps.
        """
        snapshot = activity.snapshot
        lost = snapshot.lost + snapshot.failed + sum(snapshot.refused.values())
        found = [*self._losses.problems(lost, "images"), *problems]
        stuck = ""
        patience_s = silent_after_s(activity.control.period_s or 0.0)
        if snapshot.last_received_s is None or snapshot.last_received_s > patience_s:
            found.insert(0, f"no image on {settings['image_topic']}")
        else:
            found += [*_late(snapshot, activity.control), *activity.warnings]
            found += [] if simulated else _other_clock(snapshot)
            # A result may be wanted less often than images come.
            stuck = _stuck(snapshot, max(patience_s, 2 * (activity.control.deadline_s or 0.0)))
        values = {**settings, **_values(activity)}
        return Diagnosis(failure, values, stuck, found, f"{snapshot.fps:.1f} images a second")


def _stuck(snapshot: Snapshot, silence_s: float) -> str:
    """Return that images come without results, unless a single refused image explains it."""
    costs_s = _STUCK_COSTS * snapshot.stages_ms.get("total", 0.0) / 1e3
    patience_s = max(STUCK_S, silence_s, costs_s)
    if snapshot.unanswered_s <= patience_s:
        return ""
    return f"images arrive, but none came out for {snapshot.unanswered_s:.0f} s"


def _late(snapshot: Snapshot, control: Status) -> list[str]:
    # Not the age: that includes the camera's own delay, or a bag's age.
    delay_ms = snapshot.delay_ms.get("p95", 0.0)
    if control.deadline_s is None or delay_ms <= 1e3 * control.deadline_s:
        return []
    deadline_ms = 1e3 * control.deadline_s
    return [f"delay p95 {delay_ms:.0f} ms is over the deadline of {deadline_ms:.0f} ms"]


def _other_clock(snapshot: Snapshot) -> list[str]:
    """Return what is wrong with stamps that TF and Nav2 cannot use."""
    if snapshot.other_clock:
        where = "of another clock, more than an hour from this node's clock"
    elif snapshot.ahead_s > AHEAD_S:
        where = f"{snapshot.ahead_s:.1f} s ahead of this node's clock"
    elif snapshot.age_ms.get("p50", 0.0) - snapshot.delay_ms.get("p50", 0.0) > 1e3 * BEHIND_S:
        where = f"{snapshot.age_ms['p50'] / 1e3:.1f} s behind this node's clock"
    else:
        return []
    advice = "set the camera's clock, or for a bag use_sim_time"
    return [f"stamps are {where}: TF and Nav2 cannot use them; {advice}"]


def _values(activity: Activity) -> dict[str, str]:
    snapshot, control, plan = activity.snapshot, activity.control, activity.control.plan
    values = {
        "steps": str(snapshot.steps),
        "plan_mode": plan.mode,
        "plan_steps": str(plan.steps),
        "plan_stride": str(plan.stride),
        "plan_why": control.why,
        "deadline_ms": _ms(control.deadline_s),
        "camera_period_ms": _ms(control.period_s),
        "fps": f"{snapshot.fps:.2f}",
    }
    values |= {f"delay_{name}_ms": f"{ms:.1f}" for name, ms in snapshot.delay_ms.items()}
    values |= {f"age_{name}_ms": f"{age:.1f}" for name, age in snapshot.age_ms.items()}
    values |= {f"stage_{name}_ms": f"{ms:.2f}" for name, ms in snapshot.stages_ms.items()}
    for name in ("lost", "received", "fused", "dropped", "idle", "failed", "reloads"):
        values[name] = str(getattr(snapshot, name))
    values |= {f"dropped: {cause}": str(count) for cause, count in snapshot.drops.items()}
    values |= refusal_values(snapshot.refused, snapshot.last_refusal)
    if (measures := activity.measures) is not None:
        values["input_mean"] = f"{measures.mean:.1f}"
        values["input_brightest"] = str(measures.brightest)
        values["input_saturated"] = f"{measures.saturated:.3f}"
        values["input_softness"] = "" if measures.softness is None else f"{measures.softness:.1f}"
        values["input_repeats"] = str(measures.repeats)
    return values


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.1f}"
