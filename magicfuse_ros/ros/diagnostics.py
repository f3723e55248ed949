"""The messages of `fuse_node` on /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from magicfuse_ros.deadline import Status
from magicfuse_ros.input_checks import Measures
from magicfuse_ros.ros.statistics import SILENCE_S, Snapshot

STUCK_S = 5.0
_STUCK_COSTS = 3  # a slow machine may take this many times the cost of a frame


@dataclass(frozen=True)
class Activity:
    """The activity of an active node: its counts, plan, latest input and input warnings."""

    snapshot: Snapshot
    control: Status
    measures: Measures | None
    warnings: list[str]


@dataclass(frozen=True)
class Report:
    """The state of the node at one moment.

    Attributes:
        state: lifecycle state.
        failure: what is wrong with the node, or why no image comes through; empty otherwise.
        settings: settings in use: bundle, backend, mode, tau, image_topic.
        problems: reasons why no input arrives or why results are not published.
        activity: since activation; None before the first activation.
    """

    state: str
    failure: str
    settings: Mapping[str, str]
    problems: Sequence[str]
    activity: Activity | None


class Diagnostics:
    """Turns reports into messages; remembers the last report to see what is new."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lost = 0

    def message(self, report: Report, stamp: Time) -> DiagnosticArray:
        """Return one DiagnosticArray with one status."""
        level, text = self._judge(report)
        status = DiagnosticStatus(
            level=level,
            name=f"{self._name.lstrip('/')}: fusion",
            message=text,
            hardware_id=self._name,
            values=[KeyValue(key=key, value=value) for key, value in _values(report).items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp
        return array

    def _judge(self, report: Report) -> tuple[bytes, str]:
        if report.failure:
            return DiagnosticStatus.ERROR, f"{report.state}: {report.failure}"
        activity = report.activity
        if report.state != "active" or activity is None:
            return DiagnosticStatus.OK, report.state
        snapshot = activity.snapshot
        lost = snapshot.lost + snapshot.failed + sum(snapshot.refused.values())
        new, self._lost = lost - self._lost, lost
        problems = [f"{new} images refused or lost"] if new > 0 else []
        problems += report.problems
        if snapshot.last_received_s is None or snapshot.last_received_s > SILENCE_S:
            silence = f"no image on {report.settings['image_topic']}"
            return DiagnosticStatus.WARN, f"active: {'; '.join([silence, *problems])}"
        problems += [*_late(snapshot, activity.control), *activity.warnings]
        patience_s = max(STUCK_S, _STUCK_COSTS * snapshot.stages_ms.get("total", 0.0) / 1e3)
        if snapshot.unanswered_s > patience_s:
            stuck = f"images come in, but for {snapshot.unanswered_s:.0f} s none came out"
            return DiagnosticStatus.ERROR, f"active: {'; '.join([stuck, *problems])}"
        if problems:
            return DiagnosticStatus.WARN, f"active: {'; '.join(problems)}"
        return DiagnosticStatus.OK, f"active: {snapshot.fps:.1f} images a second"


def _late(snapshot: Snapshot, control: Status) -> list[str]:
    age_ms = snapshot.age_ms.get("p95", 0.0)
    if control.deadline_s is None or age_ms <= 1e3 * control.deadline_s:
        return []
    return [f"age p95 {age_ms:.0f} ms is over the deadline of {1e3 * control.deadline_s:.0f} ms"]


def _values(report: Report) -> dict[str, str]:
    values = {"state": report.state, "failure": report.failure, **report.settings}
    if (activity := report.activity) is None:
        return values
    snapshot, control, plan = activity.snapshot, activity.control, activity.control.plan
    values["steps"] = str(snapshot.steps)
    values |= {"plan_mode": plan.mode, "plan_steps": str(plan.steps)}
    values |= {"plan_stride": str(plan.stride), "plan_why": control.why}
    values["deadline_ms"] = _ms(control.deadline_s)
    values["camera_period_ms"] = _ms(control.period_s)
    values["fps"] = f"{snapshot.fps:.2f}"
    values |= {f"age_{name}_ms": f"{age:.1f}" for name, age in snapshot.age_ms.items()}
    values |= {f"stage_{name}_ms": f"{ms:.2f}" for name, ms in snapshot.stages_ms.items()}
    for name in ("lost", "received", "fused", "dropped", "idle", "failed", "reloads"):
        values[name] = str(getattr(snapshot, name))
    values |= {f"dropped: {cause}": str(count) for cause, count in snapshot.drops.items()}
    values["refused"] = str(sum(snapshot.refused.values()))
    values["last_refusal"] = snapshot.last_refusal
    values |= {f"refused: {cause}": str(count) for cause, count in snapshot.refused.items()}
    if (measures := activity.measures) is not None:
        values["input_mean"] = f"{measures.mean:.1f}"
        values["input_brightest"] = str(measures.brightest)
        values["input_saturated"] = f"{measures.saturated:.3f}"
        values["input_softness"] = "" if measures.softness is None else f"{measures.softness:.1f}"
        values["input_repeats"] = str(measures.repeats)
    return values


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.1f}"
