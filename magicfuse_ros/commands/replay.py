# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse replay`: fuses a recorded drive again and compares it with an earlier run."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from magicfuse_ros import backends
from magicfuse_ros.backends import Choice
from magicfuse_ros.backends.engine_cache import AskedPrecision
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.command_line import INTERRUPTED, error_console
from magicfuse_ros.commands.options import (
    BackendName,
    BundleFolder,
    FitName,
    PrecisionName,
)
from magicfuse_ros.errors import MagicFuseError, MediaError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.geometry import FITS, Fit
from magicfuse_ros.interrupt import Interrupt
from magicfuse_ros.media.bag import BagSource
from magicfuse_ros.media.source import mostly_missing
from magicfuse_ros.output_files import make_folder, read_object, write_text
from magicfuse_ros.replay.compare import compare, compared_outputs
from magicfuse_ros.replay.comparison import ComparisonLimits
from magicfuse_ros.replay.live import Live, replay_live
from magicfuse_ros.replay.offline import replay_offline
from magicfuse_ros.replay.plot import figure_class
from magicfuse_ros.replay.plot import plot as draw
from magicfuse_ros.topics import NODE

BAG = "bag"
SUMMARY = "summary.json"
COMPARISON = "comparison.json"
PLOT = "comparison.png"
_SHOWN = 3  # problems on the terminal; the summary lists all
_REGRESSION = 1  # exit code; errors exit with 2
_LIMITS = ComparisonLimits()


def replay_command(
    bag: Annotated[Path, typer.Argument(help="rosbag2 with a camera: folder, .mcap or .db3.")],
    out: Annotated[Path, typer.Option(help="Folder for the new bag and the reports.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Fuse every frame without ROS, as fast as possible.")
    ] = False,
    topic: Annotated[str | None, typer.Option(help="Image topic, if the bag has several.")] = None,
    start: Annotated[float, typer.Option(min=0, help="Seconds to skip at the start.")] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds to play; to the end if omitted.")
    ] = None,
    bundle: BundleFolder = None,
    backend: BackendName = "auto",
    precision: PrecisionName = "auto",
    steps: Annotated[
        int | None,
        typer.Option(
            help="Diffusion steps K; if omitted, the bundle's default offline, and in real time "
            "as many as meet the deadline."
        ),
    ] = None,
    fit: FitName = "letterbox",
    rate: Annotated[
        float, typer.Option(min=0.001, help="Bag seconds per second; real time only.")
    ] = 1.0,
    loop: Annotated[
        int, typer.Option(min=0, help="Times to play; 0: until Ctrl-C; real time only.")
    ] = 1,
    start_node: Annotated[
        bool, typer.Option("--node/--no-node", help="Start fuse_node, or use a running one.")
    ] = True,
    name: Annotated[str, typer.Option(help="Full name of the node.")] = NODE,
    domain: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=232,
            help="ROS domain; if omitted, an unused one, or with --no-node the shell's.",
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--compare", help="Bag of an earlier run to compare with.")
    ] = None,
    min_agreement: Annotated[
        float,
        typer.Option(min=0, max=100, help="Lowest agreement of the masks in any frame, percent."),
    ] = _LIMITS.min_agreement,
    min_psnr: Annotated[
        float, typer.Option(min=0, help="Lowest PSNR of the images in any frame, dB.")
    ] = _LIMITS.min_psnr,
    max_missing: Annotated[
        int, typer.Option(min=0, help="How many frames of the earlier run may be missing.")
    ] = _LIMITS.max_missing,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the comparison; needs matplotlib.")
    ] = False,
) -> None:
    """Play a bag into fuse_node, or fuse it offline; compare with an earlier run.

    Exit code 1 if the comparison exceeds a limit. Ctrl-C leaves a complete bag and the
    summary of what was done so far, with exit code 130, or 0 with --loop 0.
    """
    console = error_console()
    fusing = Fusing(bundle, backend, precision, steps, fit)
    if plot:
        figure_class()
    if offline and (rate, loop, start_node, domain) != (1.0, 1, True, None):
        raise MagicFuseError("rate, loop, no-node and domain are for real time, not for offline")
    if not start_node and fusing != Fusing():
        raise MagicFuseError("bundle, backend, precision, steps and fit are the running node's")
    if not re.fullmatch(r"(/[A-Za-z_]\w*)+", name, re.ASCII):
        raise MagicFuseError(f"name is {name!r}; expected a full name, such as {NODE}")
    limits = ComparisonLimits(min_agreement, min_psnr, max_missing)
    if reference is None and (plot or limits != _LIMITS):
        raise MagicFuseError("plot, min-agreement, min-psnr and max-missing need --compare")
    played, folder = os.path.realpath(bag), os.path.realpath(out)  # resolve() fails in a loop
    if played == folder:
        raise MagicFuseError(f"out is '{out}', the bag itself; expected another folder")
    if played == os.path.realpath(out / BAG):
        raise MagicFuseError(f"out is '{out}', whose '{BAG}' is the bag; expected another folder")
    source = BagSource(bag, topic, start_s=start, duration_s=duration)
    if reference is not None:
        compared_outputs(reference, name)  # fail now, not at the end
    report: dict[str, Any] = {"bag": str(bag), "topic": source.topic, "start": start}
    report["duration"] = duration
    if offline:
        report |= _offline(source, fusing, name, out, console)
    else:
        source.check_one_type()
        parameters = fusing.parameters() if start_node else None
        live = Live(rate, loop, start, duration, name, parameters, domain)
        _make_folder(out)
        report |= {"mode": "real time", "rate": rate, "loop": loop}
        report |= replay_live(source, live, out, console)
    write_text(out / SUMMARY, json.dumps(report, indent=2) + "\n")
    _show(report, out, console)
    if "stopped" in report:
        line = "interrupted; the bag and the summary have everything done so far"
        console.print(Text(line, "red"), soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if not report["frames"]["fused"]:
        first = "; ".join(_problems(report)[:1]) or f"see {out / 'log'}"
        raise MagicFuseError(f"no image of '{bag}' was fused: {first}")
    missing = report["frames"].get("missing", 0) // loop if loop else 0  # in a round
    if mostly_missing(source, missing):
        raise MagicFuseError(
            f"most of '{bag}' is lost, {missing + 1} images: {_problems(report)[-1]}"
        )
    if reference is not None:
        _compare(out, reference, name, limits, plot, console)


@dataclass(frozen=True)
class Fusing:
    """The settings of the fuser."""

    bundle: Path | None = None
    backend: str = "auto"
    precision: str = "auto"
    steps: int | None = None
    fit: str = "letterbox"

    def load(self) -> Bundle:
        """Return the verified bundle."""
        return Bundle.load(Path(os.path.realpath(self.bundle or default_bundle())))

    def choose(self, bundle: Bundle) -> Choice:
        """Return the backend to use."""
        return backends.choose(self.backend, cast(AskedPrecision, self.precision), bundle)

    def fuser(self, bundle: Bundle, choice: Choice) -> Fuser:
        """Return a fuser that is ready."""
        engine = backends.select(choice.used, precision=choice.precision)
        fuser = Fuser(bundle, engine, fit=cast(Fit, self.fit), steps=self.steps)
        fuser.warm_up()
        return fuser

    def parameters(self) -> dict[str, Any]:
        """Return the settings as checked parameters of fuse_node.

        Raises:
            MagicFuseError: for a value that the node would reject.
        """
        bundle = self.load()
        self.choose(bundle)
        if self.fit not in FITS:
            raise MagicFuseError(f"fit is '{self.fit}'; expected one of {', '.join(FITS)}")
        if self.steps is not None:
            bundle.steps(self.steps)
        return {
            "bundle": str(bundle.root),
            "backend": self.backend,
            "precision": self.precision,
            "steps": self.steps or 0,
            "fit": self.fit,
        }


def _offline(
    source: BagSource, fusing: Fusing, node: str, out: Path, console: Console
) -> dict[str, Any]:
    bundle = fusing.load()
    choice = fusing.choose(bundle)
    fuser = fusing.fuser(bundle, choice)
    _make_folder(out)
    console.print(Text(f"{bundle.manifest.name} on {choice}", "dim"), soft_wrap=True)
    columns = (TextColumn("fusing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, Interrupt(sigterm=True) as interrupt:
        task = progress.add_task("", total=len(source))
        result = replay_offline(
            source,
            fuser,
            bundle.manifest.classes,
            out / BAG,
            lambda done: progress.update(task, completed=done),
            node,
            lambda: interrupt.asked,
        )
    for sentence in result.damaged[:_SHOWN]:
        console.print(Text(sentence, "yellow"), soft_wrap=True)
    return {
        "mode": "offline",
        **({"stopped": "interrupted"} if interrupt.asked else {}),
        "bundle": {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint},
        "backend": {"name": choice.used, "precision": choice.precision, "why": choice.why},
        "steps": fuser.steps,
        **result.report(),
    }


def _make_folder(out: Path) -> None:
    """Make the folder and remove reports that an earlier replay left without their bag.

    Raises:
        MediaError: if the folder holds a bag, or a file that no replay wrote, where results go.
    """
    reports = [out / name for name in (SUMMARY, COMPARISON, PLOT)]
    taken = [path for path in reports if os.path.lexists(path)]
    if os.path.lexists(out / BAG):
        raise MediaError(f"'{out / BAG}' exists; remove it or choose another out")
    if taken and not {"bag", "topic", "mode", "frames"} <= read_object(out / SUMMARY).keys():
        raise MediaError(
            f"'{taken[0]}' exists; expected a {SUMMARY} that an earlier replay wrote, or none of "
            "its results: remove it or choose another out"
        )
    make_folder(out)
    for path in taken:
        path.unlink()


def _show(report: dict[str, Any], out: Path, console: Console) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in report["frames"].items() if count)
    line = f"frames: {counts}; {report['fps']:.1f} fused a second"
    if ages := report.get("age_ms"):
        line += ", age " + ", ".join(f"{ms:.0f} ms ({name})" for name, ms in ages.items())
    console.print(Text(f"{line}; results in {out}"), soft_wrap=True)
    for problem in _problems(report)[:_SHOWN]:
        console.print(Text(problem, "yellow"), soft_wrap=True)


def _problems(report: dict[str, Any]) -> list[str]:
    if report["mode"] == "offline":
        return [f"refused {r['name']}: {r['reason']}" for r in report["refused"]]
    refused = [f"{k}, {v} times" for k, v in report["node"].items() if k.startswith("refused: ")]
    return [*refused, *report["damaged"]]


def _compare(
    out: Path, reference: Path, node: str, limits: ComparisonLimits, plot: bool, console: Console
) -> None:
    comparison = compare(out / BAG, reference, node)
    comparison.write(out / COMPARISON, limits)
    if plot:
        draw(comparison, limits, out / PLOT)
    console.print(Text(f"compared with {reference}: {comparison}"), soft_wrap=True)
    failures = comparison.failures(limits)
    for failure in failures:
        console.print(Text(f"regression: {failure}", "red"), soft_wrap=True)
    if failures:
        raise typer.Exit(_REGRESSION)
