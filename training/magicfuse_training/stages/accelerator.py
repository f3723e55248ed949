"""One process or many, on CPU or GPU: accelerate, set up for the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

from magicfuse_training.errors import TrainingError

MixedPrecision = Literal["no", "bf16", "fp16"]
_CPU_FLAGS = Path("/proc/cpuinfo")
_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # x86-64's names, and ARM's


def fastest_precision() -> MixedPrecision:
    """Return what this machine trains fastest in: a CPU without bf16 emulates it, very slowly."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    known = _CPU_FLAGS.is_file() and _BF16.intersection(_CPU_FLAGS.read_text().split())
    return "bf16" if known else "no"


def make_accelerator(accumulate: int, mixed_precision: MixedPrecision) -> Accelerator:
    """Return an accelerator for what `accelerate launch` (or nothing) started.

    The options rule, whatever accelerate's own configuration file says of them.

    Raises:
        TrainingError: for a precision that the device does not have.
    """
    try:
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=mixed_precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulate),
            # A loss may leave out a part of the model, as where a batch has no thermal image.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except ValueError as error:
        raise TrainingError(f"mixed precision '{mixed_precision}': {error}") from error
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise TrainingError("mixed precision is 'fp16'; expected 'bf16' or 'no' on a CPU")
    return accelerator
