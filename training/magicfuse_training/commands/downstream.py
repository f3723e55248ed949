# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train downstream`: trains a segmentation network on each kind of image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magicfuse_ros.backends import choose, select
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.command_line import output_console
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.output_files import check_folder
from magicfuse_training.commands import options
from magicfuse_training.console import say
from magicfuse_training.data.mix import Source
from magicfuse_training.downstream.inputs import Limits
from magicfuse_training.downstream.table import END, START
from magicfuse_training.errors import TrainingError, did_you_mean
from magicfuse_training.metrics.pages import check_page
from magicfuse_training.metrics.restoration import ALL_CONDITIONS, Condition
from magicfuse_training.stages.run_folder import locked

DEGRADED: tuple[Condition, ...] = ALL_CONDITIONS[1:]
MostFrames = Annotated[
    int | None, typer.Option(min=1, help="most frames of each set, evenly spaced")
]


def downstream_command(
    bundle: options.BundleFolder,
    data: options.Data,
    run: options.RunFolder = Path("runs/downstream"),
    steps: Annotated[int, typer.Option(min=1, help="training steps of each network")] = 20_000,
    seeds: Annotated[int, typer.Option(min=1, help="networks to train for each input")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="crops per step")] = 8,
    crop: Annotated[
        tuple[int, int], typer.Option(min=32, help="height and width of the crops, in pixels")
    ] = (512, 512),
    width: Annotated[
        int | None, typer.Option(min=32, help="width to scale images to; default: unchanged")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help=f"degradation of day frames, may be repeated: {', '.join(DEGRADED)}"),
    ] = None,
    train_frames: MostFrames = None,
    test_frames: MostFrames = None,
    backend: str = "auto",
    precision: Annotated[
        Precision, typer.Option(help="number format of the bundle's networks")
    ] = "fp32",
    page: Annotated[
        Path | None, typer.Option(help="write the table into this page too, between its markers")
    ] = None,
) -> None:
    """Train SegFormer on clean, degraded, restored and fused images, and compare the masks.

    All networks of a set get the same steps, the same crops of the same frames, and the same first
    weights for a seed. They are scored on the held-out split, each with its own kind of image.

    The table in RUN/downstream.md and .json is rewritten after every network. Ctrl-C keeps what is
    done; the same command resumes there, also with more --seeds.
    """
    try:
        from magicfuse_training.downstream import comparison  # transformers is an extra
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"downstream needs {error.name}: pip install './training[downstream]'"
        ) from error
    if page:
        check_page(page, START, END)  # fail now, not after hours
    check_folder(run)
    limits = Limits(_conditions(condition or ["dark", "haze"]), width, train_frames, test_frames)
    loaded = Bundle.load(bundle)
    about = {
        "bundle": loaded.manifest.name,
        "fingerprint": loaded.fingerprint,
        "k": loaded.manifest.default_steps,
        "tau": loaded.manifest.tau,
        "backend": choose(backend, precision).used,
        "precision": precision,
    }
    budget = comparison.Budget(steps, batch, *crop)
    with locked(run):
        compared = comparison.Comparison(
            [Source.parse(text) for text in data],
            [c.name for c in loaded.manifest.classes],
            run,
            limits,
            budget,
            seeds,
            about,
        )
        compared.make_inputs(lambda: Fuser(loaded, select(backend, precision=precision)))
        compared.train(page)
    table = (run / "downstream.md").read_text(encoding="utf-8")
    output_console().print(table, markup=False, soft_wrap=True)
    say(f"table: {run / 'downstream'}.md, .json")


def _conditions(names: list[str]) -> tuple[Condition, ...]:
    """Return the named conditions, each once.

    Raises:
        TrainingError: for an unknown one.
    """
    for name in names:
        if name not in DEGRADED:
            raise TrainingError(f"condition is '{name}'{did_you_mean(name, DEGRADED)}")
    return tuple(condition for condition in DEGRADED if condition in names)
