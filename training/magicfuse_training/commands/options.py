# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_training.data.datasets import DATASETS

RunFolder = Annotated[Path, typer.Option("--run", help="folder of checkpoints and logs")]
Data = Annotated[
    list[str],
    typer.Option(
        "--data", help=f"KIND:ROOT, may be repeated; KIND is one of {', '.join(DATASETS)}"
    ),
]
DevelopmentData = Annotated[
    Path, typer.Option("--data", help="folder that holds repacked camvid/ and msrs/")
]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="bundle folder")]
MadeBundle = Annotated[Path, typer.Option("--out", help="bundle folder to write")]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="crops per step")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="number of processes that make crops")
]
DeviceCrops = Annotated[
    bool,
    typer.Option("--device-crops", help="the GPU makes the crops; its memory holds all scenes"),
]
Every = Annotated[int, typer.Option("--every", min=1, help="score every n-th frame")]
SamplingSteps = Annotated[
    int | None, typer.Option("--steps", help="diffusion steps K; default: the bundle's")
]
NetworkPrecision = Annotated[
    Precision, typer.Option("--precision", help="number format of the networks")
]
GraphPrecision = Annotated[
    Literal["float32", "float16"],
    typer.Option("--precision", help="float16: half precision inside, for GPUs"),
]
