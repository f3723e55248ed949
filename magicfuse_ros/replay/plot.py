# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Draws a comparison with matplotlib, which nothing else needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicfuse_ros.errors import MagicFuseError, MediaError
from magicfuse_ros.replay.comparison import Comparison, ComparisonLimits, Difference

_ROWS = (
    "mask agreement, %",
    "PSNR, dB (gap: equal)",
    "flicker of the mask, %",
    "flicker of MagImg",
)
_FLICKER = {2: "segmentation/mask", 3: "mag_image"}


def figure_class() -> Any:
    """Return matplotlib's Figure.

    Raises:
        MagicFuseError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MagicFuseError(
            f"a plot needs matplotlib ({error}): pip install matplotlib"
        ) from error
    return Figure


def plot(comparison: Comparison, limits: ComparisonLimits, path: Path) -> None:
    """Draw every measure and its limit over the time since the first frame, as PNG.

    Raises:
        MagicFuseError: if matplotlib is not installed.
        MediaError: if the file cannot be written.
    """
    figure = figure_class()(figsize=(10, 10), layout="constrained")
    figure.suptitle(
        f"{comparison.new} against {comparison.reference}: "
        f"{len(comparison.differences)} frames, {len(comparison.missing)} missing"
    )
    axes = figure.subplots(len(_ROWS), 1, sharex=True)
    for axis, title in zip(axes, _ROWS, strict=True):
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("seconds since the first frame")
    differences = sorted(comparison.differences, key=lambda d: d.stamp_ns)
    seconds = [(d.stamp_ns - differences[0].stamp_ns) / 1e9 for d in differences]
    limit = {"color": "red", "linestyle": "--", "linewidth": 1, "label": "limit"}

    axes[0].plot(seconds, [_or_nan(d.mask_agreement) for d in differences])
    axes[0].axhline(limits.min_agreement, **limit)
    for name in differences[0].psnr_db if differences else ():
        # equal images have no PSNR, so they leave a gap
        axes[1].plot(seconds, [_or_nan(d.psnr_db[name]) for d in differences], label=name)
    axes[1].axhline(limits.min_psnr, **limit)
    for row, name in _FLICKER.items():
        for bag, style in (("new", "-"), ("reference", "--")):
            values = [_flicker(d, name, bag) for d in differences]
            axes[row].plot(seconds, values, style, label=bag)
    for axis in axes:
        axis.legend(loc="lower right", fontsize="small")
    try:
        figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        raise MediaError(f"cannot write '{path}': {error.strerror}") from error


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _flicker(difference: Difference, name: str, bag: str) -> float:
    flicker = difference.flicker.get(name)
    return float("nan") if flicker is None else float(getattr(flicker, bag))
