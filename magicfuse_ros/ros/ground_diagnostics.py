"""The counts of `ground_cloud_node` and its messages on /diagnostics."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from statistics import median
from time import monotonic

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from magicfuse_ros.ros.causes import Causes

SILENCE_S = 2.0
_RECENT = 100


class GroundDiagnostics:
    """Counts since the node's start; one thread uses it.

    Attributes:
        counts: numbers of masks: `received`, `published`, `idle` (nobody wanted a result) and
            `failed` (lost because of a bug).
    """

    def __init__(self, name: str) -> None:
        self.counts: Counter[str] = Counter(received=0, published=0, idle=0, failed=0)
        self._name = name
        self._refused = Causes()
        self._told = 0
        self._times_ms: deque[float] = deque(maxlen=_RECENT)
        self._last_mask: float | None = None

    def received(self) -> None:
        """Count a mask that arrived."""
        self.counts["received"] += 1
        self._last_mask = monotonic()

    def published(self, ms: float) -> None:
        """Count a mask whose results were published, and the time it took."""
        self.counts["published"] += 1
        self._times_ms.append(ms)

    def refused(self, reason: str) -> bool:
        """Count a refused mask; return whether to log it, because it is the first of its cause."""
        return self._refused.add(reason)

    def message(
        self,
        state: str,
        failure: str,
        settings: Mapping[str, str],
        problems: Sequence[str],
        stamp: Time,
    ) -> DiagnosticArray:
        """Return one DiagnosticArray with one status.

        Args:
            state: lifecycle state.
            failure: what is wrong with the node; empty if nothing is.
            settings: settings in use.
            problems: reasons why no input arrives or why it is not used.
            stamp: time of the message.
        """
        level, text = self._judge(state, failure, problems)
        values = {"state": state, "failure": failure, **settings}
        values |= {name: str(count) for name, count in self.counts.items()}
        values["refused"] = str(self._refused.total)
        values |= {f"refused: {cause}": str(n) for cause, n in self._refused.counts.items()}
        values["last_refusal"] = self._refused.latest
        if self._times_ms:
            values["projection_ms"] = f"{median(self._times_ms):.2f}"
        status = DiagnosticStatus(
            level=level,
            name=f"{self._name.lstrip('/')}: ground cloud",
            message=text,
            hardware_id=self._name,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp
        return array

    def _judge(self, state: str, failure: str, problems: Sequence[str]) -> tuple[bytes, str]:
        if failure:
            return DiagnosticStatus.ERROR, f"{state}: {failure}"
        if state != "active":
            return DiagnosticStatus.OK, state
        lost = self._refused.total + self.counts["failed"]
        new, self._told = lost - self._told, lost
        found = []
        if self._last_mask is None or monotonic() - self._last_mask > SILENCE_S:
            found.append("no mask arrives")
        if new:
            found.append(f"{new} masks refused or lost")
        found += problems
        if found:
            return DiagnosticStatus.WARN, f"active: {'; '.join(found)}"
        return DiagnosticStatus.OK, "active"
