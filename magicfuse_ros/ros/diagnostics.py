# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The messages of both nodes on /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from magicfuse_ros.printable import printable
from magicfuse_ros.ros.causes import MAX_REPORTED, one_line


@dataclass(frozen=True)
class Diagnosis:
    """What a node reports besides its lifecycle state.

    Attributes:
        failure: why no result comes out any more; empty if results do.
        values: settings and counts, by key.
        stuck: set if input arrives and no result comes out, which is an error.
        problems: what else is wrong while the node is active.
        summary: text of an active node without problems.
    """

    failure: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    stuck: str = ""
    problems: Sequence[str] = ()
    summary: str = ""


class Losses:
    """Reports the inputs that were lost since it was last asked."""

    def __init__(self) -> None:
        self._reported = 0

    def problems(self, total: int, what: str) -> list[str]:
        """Return a problem if the total number of lost inputs has grown, else none."""
        new, self._reported = total - self._reported, total
        return [f"{new} {what} refused or lost"] if new > 0 else []


def refusal_values(refused: Mapping[str, int], latest: str) -> dict[str, str]:
    """Return the keys about refused inputs; `refused` counts them by cause (see `Causes`)."""
    return {
        "refused": str(sum(refused.values())),
        "last_refusal": latest,
        **{f"refused: {cause}": str(count) for cause, count in refused.items()},
    }


def diagnostics(
    node: str, task: str, state: str, diagnosis: Diagnosis, stamp: Time
) -> DiagnosticArray:
    """Return a message with one status.

    Args:
        node: full name of the node.
        task: what it does, for the name of the status.
        state: lifecycle state.
        diagnosis: the rest.
        stamp: time of the message.
    """
    level, text = _judge(state, diagnosis)
    values = {"state": state, "failure": diagnosis.failure, **diagnosis.values}
    status = DiagnosticStatus(
        level=level,
        name=f"{node.lstrip('/')}: {task}",
        message=one_line(text, MAX_REPORTED),
        hardware_id=node,
        values=[KeyValue(key=key, value=printable(value)) for key, value in values.items()],
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _judge(state: str, diagnosis: Diagnosis) -> tuple[bytes, str]:
    if diagnosis.failure:
        return DiagnosticStatus.ERROR, f"{state}: {diagnosis.failure}"
    if state != "active":
        return DiagnosticStatus.OK, state
    if problems := [*filter(None, [diagnosis.stuck]), *diagnosis.problems]:
        level = DiagnosticStatus.ERROR if diagnosis.stuck else DiagnosticStatus.WARN
        return level, f"active: {'; '.join(problems)}"
    return DiagnosticStatus.OK, f"active: {diagnosis.summary}" if diagnosis.summary else "active"
