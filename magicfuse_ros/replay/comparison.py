# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The result of comparing two bags, and whether it is within limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from magicfuse_ros.output_files import write_text

_NAMED = 3  # stamps in a message


@dataclass(frozen=True)
class ComparisonLimits:
    """The limits for a pass; the worst frame decides.

    Attributes:
        min_agreement: lowest allowed agreement of the masks, in percent.
        min_psnr: lowest allowed PSNR of every image, in dB.
        max_missing: highest allowed number of frames that only the reference has.
    """

    min_agreement: float = 98.0
    min_psnr: float = 30.0
    max_missing: int = 0


@dataclass
class Flicker:
    """The change from the previous frame, in either bag."""

    new: float
    reference: float


@dataclass
class Difference:
    """One frame that both bags have; outputs missing from a bag are left out.

    Attributes:
        stamp_ns: stamp of the header.
        mask_agreement: pixels of the same class, in percent.
        psnr_db: by image name; None if the image equals the reference.
        flicker: by name, from the second frame on. For the mask: pixels whose class changes, in
            percent. For MagImg: mean absolute difference, 0 to 255.
    """

    stamp_ns: int
    mask_agreement: float | None = None
    psnr_db: dict[str, float | None] = field(default_factory=dict)
    flicker: dict[str, Flicker] = field(default_factory=dict)


@dataclass
class Comparison:
    """A comparison of two bags.

    Attributes:
        new: the bag to check.
        reference: the bag of an earlier run.
        differences: one for each frame in both bags, in the reference's order.
        missing: stamps that only the reference has, in ns.
        extra: stamps that only the new bag has, in ns.
        missing_outputs: outputs that only the reference has.
    """

    new: str
    reference: str
    differences: list[Difference]
    missing: list[int]
    extra: list[int]
    missing_outputs: list[str]

    def __str__(self) -> str:
        """Describe the counts and the worst values in one line."""
        summary = self.summary()
        parts = [", ".join(f"{count} {name}" for name, count in summary["frames"].items())]
        if agreement := summary["mask_agreement"]:
            parts.append(f"mask agreement {agreement['worst']:.2f} % or more")
        for name, psnr in summary["psnr_db"].items():
            parts.append(f"{name} {psnr['worst']:.1f} dB or more" if psnr else f"{name} equal")
        return "; ".join(parts)

    def failures(self, limits: ComparisonLimits) -> list[str]:
        """Describe what exceeds the limits; empty if nothing does."""
        found = [f"{name} is in the reference only" for name in self.missing_outputs]
        if not self.differences:
            found.append("no frame is in both bags")
        if len(self.missing) > limits.max_missing:
            first = ", ".join(_seconds(ns) for ns in self.missing[:_NAMED])
            found.append(
                f"frames missing: {len(self.missing)}, at most {limits.max_missing} may be; "
                f"the first are those of {first}"
            )
        found += self._below("mask agreement", limits.min_agreement, " %", _agreement)
        for name in self._images():
            found += self._below(f"PSNR of {name}", limits.min_psnr, " dB", _psnr(name))
        return found

    def summary(self) -> dict[str, Any]:
        """Return counts, and the worst and mean value of each measure over the frames."""
        return {
            "frames": {
                "compared": len(self.differences),
                "missing": len(self.missing),
                "extra": len(self.extra),
            },
            "mask_agreement": _worst_and_mean(map(_agreement, self.differences)),
            "psnr_db": {
                name: _worst_and_mean(map(_psnr(name), self.differences)) for name in self._images()
            },
            "flicker": self._mean_flicker(),
        }

    def write(self, path: Path, limits: ComparisonLimits) -> None:
        """Write everything as JSON.

        Raises:
            MediaError: if the file cannot be written.
        """
        failures = self.failures(limits)
        parts = asdict(self)
        differences = parts.pop("differences")
        report = {
            "passed": not failures,
            "failures": failures,
            "limits": asdict(limits),
            **self.summary(),
            **parts,
            "per_frame": differences,
        }
        write_text(path, json.dumps(report, indent=2) + "\n")

    def _images(self) -> list[str]:
        return list(self.differences[0].psnr_db) if self.differences else []

    def _below(
        self, what: str, limit: float, unit: str, measure: Callable[[Difference], float | None]
    ) -> list[str]:
        measured = [(measure(d), d.stamp_ns) for d in self.differences]
        low = [(value, ns) for value, ns in measured if value is not None and value < limit]
        if not low:
            return []
        worst, ns = min(low)
        return [
            f"{what} is below {limit:g}{unit} in {len(low)} of {len(measured)} frames; "
            f"the worst is that of {_seconds(ns)} with {worst:.2f}{unit}"
        ]

    def _mean_flicker(self) -> dict[str, dict[str, float]]:
        by_name: dict[str, list[Flicker]] = {}
        for difference in self.differences:
            for name, flicker in difference.flicker.items():
                by_name.setdefault(name, []).append(flicker)
        return {
            name: {
                "new": round(fmean(f.new for f in flickers), 4),
                "reference": round(fmean(f.reference for f in flickers), 4),
            }
            for name, flickers in by_name.items()
        }


def _agreement(difference: Difference) -> float | None:
    return difference.mask_agreement


def _psnr(name: str) -> Callable[[Difference], float | None]:
    return lambda difference: difference.psnr_db[name]


def _worst_and_mean(values: Iterable[float | None]) -> dict[str, float] | None:
    """Return the worst and the mean; None if no frame has a value: output missing or all equal."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"worst": round(min(known), 6), "mean": round(fmean(known), 4)}


def _seconds(ns: int) -> str:
    return f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09d}"
