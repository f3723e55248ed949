# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train adapt`: adapts a bundle to a camera with unlabelled frames."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_ros.output_files import check_folder
from magicfuse_training.adaptation.check import Figures
from magicfuse_training.adaptation.run import RECORD, Adaptation, Recording, adapt, publish
from magicfuse_training.commands import options
from magicfuse_training.commands.stage import check_stage
from magicfuse_training.console import say
from magicfuse_training.errors import TrainingError
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.accelerator import processes
from magicfuse_training.stages.run_folder import locked
from magicfuse_training.stages.runner import Budget

REFUSED = 1  # exit code; errors exit with 2


def adapt_command(
    input: Annotated[Path, typer.Argument(help="rosbag2, folder of pictures, or video")],
    bundle: options.BundleFolder,
    out: options.MadeBundle,
    minutes: Annotated[float, typer.Option(min=0, help="time budget of the training")] = 480,
    steps: Annotated[
        int | None, typer.Option(min=0, help="budget in steps instead of minutes")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="image topic, if the rosbag2 has several")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="folder for frames, labels and checkpoints; runs/NAME_OF_OUT if omitted"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="preset, by name or YAML file; the bundle's if omitted")
    ] = None,
    batch: options.Batch = None,
    workers: options.Workers = 1,
    device_crops: options.DeviceCrops = False,
    backend: Annotated[
        str, typer.Option(help="backend that labels the frames and judges the result")
    ] = "auto",
    seed: int = 0,
) -> None:
    """Adapt a bundle to one camera; resume a run that was killed.

    The bundle learns to give dark or hazy versions of a frame the class probabilities that it gave
    the frame itself, and to restore them. If a limit is not met on held-out frames, the exit
    code is 1 and nothing is written to OUT.
    """
    if processes().num_processes > 1:
        raise TrainingError("adapt runs in one process; expected no launcher of several")
    old = Bundle.load(bundle)
    if os.path.realpath(out) == os.path.realpath(old.root):  # resolve() fails in a loop of links
        raise TrainingError(f"out is '{out}', the bundle itself; expected another folder")
    folder = run or Path("runs") / out.name
    given = Path(os.path.realpath(input))
    if Path(os.path.realpath(folder)) in (given, *given.parents):
        raise TrainingError(f"run is '{folder}', which holds the input; expected another folder")
    check_folder(out)  # fail now, not after a night
    budget = Budget(
        None if steps is not None else minutes,
        steps,
        batch,
        workers=workers,
        device_crops=device_crops,
        seed=seed,
    )
    trained = load_preset(preset or old.manifest.preset)
    check_stage(trained, "few_step")
    with locked(folder):
        result = adapt(Recording(input, topic), old, trained, folder, budget, backend=backend)
    output_console().print(unclipped(_table(result.figures)))
    if result.misses:
        reasons = "; ".join(result.misses)
        say(f"refused: {reasons}. '{out}' was not written; see {folder / RECORD}", "red")
        raise typer.Exit(REFUSED)
    publish(result.bundle, out, backend)
    say(_summary(result, out))


def _table(figures: Figures) -> Table:
    lights = f"{figures.frames - figures.night} by day, {figures.night} at night"
    table = Table(f"held-out frames: {lights}", title="Adapted", title_justify="left")
    for column in ("old", "new", "limit"):
        table.add_column(column, justify="right")
    for row in figures.rows():
        old = "" if row.old is None else f"{row.old:.2f}"
        table.add_row(row.name, old, Text(f"{row.new:.2f}", "" if row.met else "red"), row.limit)
    return table


def _summary(result: Adaptation, out: Path) -> str:
    selection = result.selection
    return (
        f"{out} written: {selection.train} frames, {100 * result.labelled:.0f} % of their pixels "
        f"labelled, {result.minutes:.1f} minutes\n"
        "it has no int8 graphs; to make them, with repacked CamVid and MSRS in DATA: "
        f"magicfuse-train quantize --bundle {out} --data DATA --minimum-db 33"
    )
