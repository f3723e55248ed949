# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train quantize`: adds int8 graphs to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from magicfuse_ros.bundle import Bundle, NetworkName
from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_ros.output_files import check_folder
from magicfuse_training.commands import options
from magicfuse_training.console import say
from magicfuse_training.data.errors import DataError
from magicfuse_training.errors import ExportError
from magicfuse_training.export.weights import check_float32

MINIMUM_DB = 36.0
FRAMES = {  # for calibration and for measurement
    "camvid/train/vi": "*.jpg",
    "msrs/train/vi": "*N.jpg",
    "camvid/val/vi": "*.jpg",
    "msrs/dev/vi": "*.jpg",
}


def quantize_command(
    bundle: options.BundleFolder,
    data: options.DevelopmentData,
    out: Annotated[
        Path | None, typer.Option(help="bundle folder to write; the bundle's own if omitted")
    ] = None,
    minimum_db: Annotated[
        float,
        typer.Option(
            help="lowest signal-to-noise ratio against float32 of each network's outputs, dB"
        ),
    ] = MINIMUM_DB,
) -> None:
    """Add int8 graphs to a bundle, calibrated on training frames and checked on val and dev."""
    try:
        import nncf  # noqa: F401  (an extra)

        from magicfuse_training.quantization.bundle import quantize_bundle
        from magicfuse_training.quantization.guard import QuantizedNetwork
    except ModuleNotFoundError as error:
        raise ExportError(
            f"quantize needs {error.name}: pip install './training[quantize]'"
        ) from error
    check_frames(data)
    check_folder(out or bundle)
    loaded = Bundle.load(bundle)
    check_float32(loaded)

    def tell(name: NetworkName, result: QuantizedNetwork) -> None:
        kept = f"; float32: {', '.join(result.float32_layers)}" if result.float32_layers else ""
        say(f"{name}: {len(result.layers)} layers in int8, {result.decibels:.1f} dB{kept}")

    losses = quantize_bundle(loaded, data, out or bundle, minimum_db, tell)
    table = Table("int8 against float32", title="Losses", title_justify="left")
    for column in (
        "frames",
        "mask agreement %",
        "restored PSNR, dB",
        "mIoU",
        "restored dB",
        "MagImg dB",
        "thermal dB",
    ):
        table.add_column(column, justify="right")
    for where, loss in losses.items():
        cells = (f"{loss.agreement_percent:.2f}", _loss(loss.psnr_loss_db), _loss(loss.miou_loss))
        pictures = (loss.restored_db, loss.mag_image_db, loss.thermal_db)
        images = (f"{decibels:.1f}" for decibels in pictures)
        table.add_row(where, str(loss.frames), *cells, *images)
    output_console().print(unclipped(table))
    say(f"written to {out or bundle}")


def check_frames(data: Path) -> None:
    """Check that a folder has the frames for calibration and for measurement.

    Raises:
        DataError: names the first folder without frames.
    """
    for folder, pattern in FRAMES.items():
        if next((data / folder).glob(pattern), None) is None:
            raise DataError(
                f"'{data / folder}' holds no {pattern}; int8 graphs are made and measured with the "
                f"frames of repacked camvid/ and msrs/, which are expected in '{data}'"
            )


def _loss(value: float | None) -> str:
    return "" if value is None else f"{-value:+.2f}"
