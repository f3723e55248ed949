# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The messages between the benchmark and its processes, as lines of JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from magicfuse_ros.backends.engine_cache import AskedPrecision, Precision
from magicfuse_ros.bench.gpu import Gpu
from magicfuse_ros.outputs import Output


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(_Message):
    """A combination to time."""

    bundle: Path
    backend: str
    precision: AskedPrecision
    width: int  # of the frame
    height: int
    steps: int | None  # K; None: the bundle's default
    threads: int  # CPU threads; 0: all cores
    outputs: tuple[Output, ...]

    def __str__(self) -> str:
        steps = "" if self.steps is None else f", K = {self.steps}"
        return f"{self.backend} {self.precision}, {self.width}x{self.height}{steps}"


class Ready(_Message):
    """The first frame is fused."""

    backend: str  # the one that `auto` took
    version: str
    why: str
    precision: Precision  # the one that `auto` took
    gpu: Gpu | None = None  # the one that runs the networks; None: the CPU runs them
    steps: int
    gflop: float  # of a frame


class Round(_Message):
    """Frames timed in a row."""

    end_to_end_ms: list[float]
    stages_ms: dict[str, list[float]]
    rss_mb: float  # of the pipeline alone: taken before the first round's convolutions
    conv_peak_gflops: float | None  # None: this machine cannot measure it


class Failure(_Message):
    """Why a combination cannot be timed."""

    error: str
