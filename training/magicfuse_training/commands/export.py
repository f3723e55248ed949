# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train export`: writes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magicfuse_ros.output_files import check_folder
from magicfuse_training.commands import options
from magicfuse_training.commands.runs import (
    load_averaged,
    minutes_of,
    newest_checkpoint,
    recorded_preset,
    tell_replaced,
)
from magicfuse_training.console import say
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.run_folder import untrained
from magicfuse_training.stages.runner import recorded_data


def export_command(
    out: options.MadeBundle,
    run: options.RunFolder = Path("runs/nano"),
    preset: Annotated[
        str | None, typer.Option(help="preset; the one that the run was trained with if omitted")
    ] = None,
    precision: options.GraphPrecision = "float32",
) -> None:
    """Export the averaged weights of a run's last stage as a bundle, checked against eager."""
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise TrainingError(f"run '{run}' has no checkpoint; expected {run}/STAGE/last.pt")
    check_folder(out)
    config = load_preset(preset) if preset else recorded_preset(checkpoint)
    model = MagicFuse(config or load_preset("nano"))
    load_averaged(model, checkpoint)
    trained = recorded_data(checkpoint.parent)
    commit = current_commit(Path(__file__).parent)
    made = provenance(minutes_of(run), commit, trained.data, trained.terms)
    tell_replaced(out)
    export_bundle(model, out, made, precision)
    say(f"{out} written from {checkpoint}")
    if warning := untrained(checkpoint.parent):
        say(warning, "yellow")
