# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train degradations`: draws a sheet of the camera and weather model's effects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from magicfuse_ros.errors import FrameError, MediaError
from magicfuse_ros.image_codec import Pixels, decode_file
from magicfuse_ros.media.contact_sheet import PANEL_WIDTH, contact_sheet
from magicfuse_ros.media.panels import panel_height, scale_to
from magicfuse_ros.output_files import check_file, write_png
from magicfuse_training.console import say
from magicfuse_training.degradations import degrade, known_kinds

STRENGTHS = (0.0, 0.5, 1.0)
COMBINATIONS = ("dark+rain", "haze+motion+jpeg", "fog+defocus")


def degradations_command(
    images: Annotated[list[Path], typer.Argument(help="clean pictures", metavar="IMAGE...")],
    out: Annotated[Path, typer.Option(help="PNG to write")],
    seed: int = 0,
) -> None:
    """Draw every kind of degradation, and some combinations, at three strengths."""
    if os.path.realpath(out) in map(os.path.realpath, images):  # resolve() fails in a loop
        raise MediaError(f"out is '{out}', one of the pictures; expected another file")
    pictures = [(path, _read(path)) for path in images]
    if out.parent.is_dir():
        check_file(out)
    rows: list[tuple[str, list[Pixels]]] = []
    for kind in (*(k for k in known_kinds() if k != "clean"), *COMBINATIONS):
        for path, picture in pictures:
            # All columns of a row share one seed, so only the strength differs.
            made = [degrade(picture, kind, s, np.random.default_rng(seed)) for s in STRENGTHS]
            label = kind if len(pictures) == 1 else f"{kind}: {path.stem}"
            rows.append((label, [_small(image) for image in (picture, *made)]))
    titles = ("clean", *(f"strength {s:g}" for s in STRENGTHS))
    heading = f"Degradations, seed {seed}"
    write_png(out, contact_sheet(rows, titles, heading=heading))
    say(f"{out} written: {len(rows)} rows, {len(titles)} columns")


def _small(image: Pixels) -> Pixels:
    """Return a panel of the sheet: whole pictures of all kinds would need gigabytes."""
    return scale_to(image, PANEL_WIDTH, panel_height(image, PANEL_WIDTH))


def _read(path: Path) -> Pixels:
    try:
        return decode_file(path.read_bytes())
    except OSError as error:
        raise MediaError(f"cannot read '{path}': {error.strerror}") from error
    except FrameError as error:
        raise MediaError(f"'{path}' is not a picture: {error}") from error
