# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train convert-official`: converts the authors' weights to a bundle or checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from magicfuse_ros.bundle import Provenance, sha256
from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_ros.output_files import check_folder, write_text
from magicfuse_training.console import say
from magicfuse_training.data.mix import Trained
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.model import MagicFuse
from magicfuse_training.official.files import OfficialFiles, load_official
from magicfuse_training.official.verify import ArrayComparison, compare
from magicfuse_training.stages.checkpoint import save_atomically
from magicfuse_training.stages.runner import record_data


def convert_official_command(
    autoencoder: Annotated[Path, typer.Argument(help="ae.pth: holds `encoder` and `decoder`")],
    ikr: Annotated[Path, typer.Argument(help="ikr.pth: the restoring stream")],
    ckg: Annotated[
        Path, typer.Argument(help="ckg.pth: the stream that estimates the thermal image")
    ],
    mkf: Annotated[Path, typer.Argument(help="model.pth: the fusion network with its head")],
    out: Annotated[Path, typer.Option(help="folder to write")],
    checkpoint: Annotated[
        bool, typer.Option(help="write a run folder for further training instead of a bundle")
    ] = False,
    verify: Annotated[
        Path | None, typer.Option(help="arrays of the published networks (.npz) to compare with")
    ] = None,
    height: Annotated[int, typer.Option(min=32, help="rows of the bundle's image")] = 480,
    width: Annotated[int, typer.Option(min=32, help="columns of the bundle's image")] = 640,
    ikr_heads: Annotated[int, typer.Option(min=1, help="attention heads of ikr")] = 4,
    ckg_heads: Annotated[int, typer.Option(min=1, help="attention heads of ckg")] = 8,
) -> None:
    """Convert the authors' weights, .pth or .safetensors; a bundle stores them as float16.

    With --verify, nothing is written unless every array is within its limit.
    """
    for name, size in (("height", height), ("width", width)):
        if size % 4:
            raise typer.BadParameter(f"{name} is {size}; expected a multiple of 4")
    check_folder(out)
    if checkpoint and (trained := out / "mkf" / "last.pt").exists():
        raise TrainingError(f"'{trained}' is there already; expected a new folder")
    files = OfficialFiles(autoencoder, ikr, ckg, mkf)
    model = load_official(files, ikr_heads, ckg_heads)
    model.preset = model.preset.model_copy(update={"height": height, "width": width})
    if verify is not None:
        results = compare(model, verify)
        _print(results)
        if wrong := [r.array for r in results if not r.fits]:
            typer.echo(f"{len(wrong)} of {len(results)} arrays differ, first {wrong[0]}", err=True)
            raise typer.Exit(1)
    if checkpoint:
        _write_run(model, _provenance(files), out)
    else:
        export_bundle(model, out, _provenance(files))
    say(f"{out} written")


def _print(results: list[ArrayComparison]) -> None:
    table = Table("array", "relative error", "limit", title="published and converted networks")
    for result in results:
        style = None if result.fits else "red"
        table.add_row(result.array, f"{result.error:.1e}", f"{result.limit:.0e}", style=style)
    output_console().print(unclipped(table))


def _write_run(model: MagicFuse, made: Provenance, folder: Path) -> None:
    """Write what the last stage before `mkf` leaves, and the preset: `mkf` goes on from there."""
    stage = folder / "ckg"
    stage.mkdir(parents=True, exist_ok=True)
    save_atomically({"ema": model.state_dict(), "elapsed": 0.0}, stage / "last.pt")
    record_data(stage, Trained.of(made))
    preset = yaml.safe_dump(model.preset.model_dump(mode="json"), sort_keys=False)
    write_text(folder / "preset.yaml", preset)


def _provenance(files: OfficialFiles) -> Provenance:
    paths = (files.autoencoder, files.ikr, files.ckg, files.mkf)
    return provenance(
        {},
        current_commit(Path(__file__).parent),
        [f"weights of the paper's authors: {p.name}, SHA-256 {sha256(p)}" for p in paths],
        "none given: the authors' release states no licence",
    )
