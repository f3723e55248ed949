"""What the benchmark and its worker processes tell each other, as lines of JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from magicfuse_ros.bench.gpu import Gpu
from magicfuse_ros.engine_cache import AskedPrecision, Precision
from magicfuse_ros.outputs import Output


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(_Message):
    """A combination to be timed."""

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
    gpu: Gpu | None = None  # which the networks run on; None: on the CPU
    steps: int
    gflop: float  # of a frame


class Round(_Message):
    """Frames that were timed in a row."""

    end_to_end_ms: list[float]
    stages_ms: dict[str, list[float]]
    rss_mb: float  # before the first round's convolutions: of the pipeline alone
    conv_peak_gflops: float | None  # None: this machine has nothing to measure it with


class Refusal(_Message):
    """Why a combination cannot be timed."""

    error: str
