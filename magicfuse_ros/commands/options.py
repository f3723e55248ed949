# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Options of the commands that fuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magicfuse_ros import backends
from magicfuse_ros.backends.engine_cache import ASKED_PRECISIONS
from magicfuse_ros.geometry import FITS

_BUNDLE = "Bundle folder; the default bundle if omitted."
BundleFolder = Annotated[Path | None, typer.Option(help=_BUNDLE)]
BundleArgument = Annotated[Path | None, typer.Argument(help=_BUNDLE)]
BackendName = Annotated[str, typer.Option(help=", ".join(backends.BACKENDS))]
PrecisionName = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(ASKED_PRECISIONS)}; auto: fp16 on a GPU; int8 or fp32 on a CPU."
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="Diffusion steps K; the bundle's default if omitted.")
]
FitName = Annotated[
    str, typer.Option(help=f"How to fit a frame to the networks' size: {' or '.join(FITS)}.")
]
