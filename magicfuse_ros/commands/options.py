"""Options of the commands that fuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magicfuse_ros import backends
from magicfuse_ros.backends.engine_cache import ASKED_PRECISIONS
from magicfuse_ros.geometry import FITS

BundleFolder = Annotated[
    Path | None, typer.Option(help="Bundle folder; the default bundle if omitted.")
]
BackendName = Annotated[str, typer.Option(help=", ".join(backends.BACKENDS))]
PrecisionName = Annotated[
    str, typer.Option(help=f"{', '.join(ASKED_PRECISIONS)}; auto: fp16 on a GPU, fp32 on a CPU.")
]
Steps = Annotated[int | None, typer.Option(help="K; the bundle's default if omitted.")]
FitName = Annotated[str, typer.Option(help=f"To the networks' image size: {' or '.join(FITS)}.")]
