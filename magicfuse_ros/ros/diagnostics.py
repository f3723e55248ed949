"""What `fuse_node` says on /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from magicfuse_ros.ros.statistics import Snapshot

SILENCE_S = 2.0


@dataclass(frozen=True)
class Report:
    """The state of the node at one moment.

    Attributes:
        state: of the lifecycle.
        failure: why the latest transition failed, or no image comes through; empty otherwise.
        settings: what is in use: bundle, backend, mode, tau, image_topic.
        snapshot: counts since activation, None before the first.
    """

    state: str
    failure: str
    settings: Mapping[str, str]
    snapshot: Snapshot | None


class Diagnostics:
    """Makes messages of reports; remembers the last one to tell what is new."""

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
        snapshot = report.snapshot
        if report.state != "active" or snapshot is None:
            return DiagnosticStatus.OK, report.state
        lost = snapshot.failed + sum(snapshot.refused.values())
        new, self._lost = lost - self._lost, lost
        if snapshot.last_received_s is None or snapshot.last_received_s > SILENCE_S:
            return DiagnosticStatus.WARN, f"active: no image on {report.settings['image_topic']}"
        if new > 0:
            return DiagnosticStatus.WARN, f"active: {new} images refused or lost"
        return DiagnosticStatus.OK, f"active: {snapshot.fps:.1f} images a second"


def _values(report: Report) -> dict[str, str]:
    values = {"state": report.state, "failure": report.failure, **report.settings}
    if (snapshot := report.snapshot) is None:
        return values
    values["steps"] = str(snapshot.steps)
    values["fps"] = f"{snapshot.fps:.2f}"
    values |= {f"age_{name}_ms": f"{age:.1f}" for name, age in snapshot.age_ms.items()}
    values |= {f"stage_{name}_ms": f"{ms:.2f}" for name, ms in snapshot.stages_ms.items()}
    for name in ("received", "fused", "dropped", "idle", "failed", "reloads"):
        values[name] = str(getattr(snapshot, name))
    values["refused"] = str(sum(snapshot.refused.values()))
    values |= {f"refused: {cause}": str(count) for cause, count in snapshot.refused.items()}
    return values
