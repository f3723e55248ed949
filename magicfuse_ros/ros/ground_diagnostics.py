"""What `ground_cloud_node` counts, and says on /diagnostics."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from statistics import median
from time import monotonic

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

SILENCE_S = 2.0
_MAX_CAUSES = 8
_RECENT = 100


class GroundDiagnostics:
    """Counts since the node's start; one thread uses it.

    Attributes:
        counts: of masks that were `received`, `published`, `idle` (nobody wanted a result) and
            `failed` (lost by a defect).
    """

    def __init__(self, name: str) -> None:
        self.counts: Counter[str] = Counter(received=0, published=0, idle=0, failed=0)
        self._name = name
        self._refused: Counter[str] = Counter()
        self._told = 0
        self._times_ms: deque[float] = deque(maxlen=_RECENT)
        self._last_mask: float | None = None

    def received(self) -> None:
        """Count a mask that arrived."""
        self.counts["received"] += 1
        self._last_mask = monotonic()

    def published(self, ms: float) -> None:
        """Count a mask whose results are out, and how long that took."""
        self.counts["published"] += 1
        self._times_ms.append(ms)

    def refused(self, cause: str) -> bool:
        """Count a refused mask; return whether it is the first one for this cause."""
        known = cause in self._refused or len(self._refused) < _MAX_CAUSES
        name = cause if known else "other"
        self._refused[name] += 1
        return self._refused[name] == 1

    def message(
        self, state: str, failure: str, settings: Mapping[str, str], stamp: Time
    ) -> DiagnosticArray:
        """Return one DiagnosticArray with one status.

        Args:
            state: of the lifecycle.
            failure: why the latest configuration failed, empty otherwise.
            settings: what is in use.
            stamp: the time.
        """
        level, text = self._judge(state, failure)
        values = {"state": state, "failure": failure, **settings}
        values |= {name: str(count) for name, count in self.counts.items()}
        values["refused"] = str(self._refused.total())
        values |= {f"refused: {cause}": str(count) for cause, count in self._refused.items()}
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

    def _judge(self, state: str, failure: str) -> tuple[bytes, str]:
        if failure:
            return DiagnosticStatus.ERROR, f"{state}: {failure}"
        if state != "active":
            return DiagnosticStatus.OK, state
        lost = self._refused.total() + self.counts["failed"]
        new, self._told = lost - self._told, lost
        if self._last_mask is None or monotonic() - self._last_mask > SILENCE_S:
            return DiagnosticStatus.WARN, "active: no mask arrives"
        if new:
            return DiagnosticStatus.WARN, f"active: {new} masks refused or lost"
        return DiagnosticStatus.OK, "active"
