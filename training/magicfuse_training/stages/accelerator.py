# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""One process or many, on CPU or GPU: accelerate, set up for the stages."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    broadcast_object_list,
    parse_flag_from_env,
)
from torch.nn import functional as F

from magicfuse_training.errors import TrainingError

MixedPrecision = Literal["no", "bf16", "fp16"]
_CPU_FLAGS = Path("/proc/cpuinfo")
_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # x86-64's names, and ARM's
_CLEARLY_FASTER = 1.2  # times; below that, bf16's rounding is not worth it
_MEASURE_ROUNDS = 5
_MEASURE_S = 0.25  # no further round begins after this time


def fastest_precision() -> MixedPrecision:
    """Return the precision in which this machine trains fastest.

    On a CPU, flags only tell that it supports bf16; the speedup is measured.
    """
    if not _on_cpu():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    native = _CPU_FLAGS.is_file() and _BF16.intersection(_CPU_FLAGS.read_text().split())
    return "bf16" if native and _bf16_speedup() >= _CLEARLY_FASTER else "no"


def processes() -> PartialState:
    """Return the state of the processes; connect them if they are not connected yet."""
    return PartialState(cpu=_on_cpu())


def make_accelerator(accumulate: int, mixed_precision: MixedPrecision | None) -> Accelerator:
    """Return an accelerator for the processes of `accelerate launch`, or for this process alone.

    The options take precedence over accelerate's own configuration file and over anything that ran
    earlier in this process. Accelerators of earlier runs become unusable, because accelerate keeps
    one state for all.

    Args:
        accumulate: parts of a batch that each process computes one after the other.
        mixed_precision: the first process's value is used by all; None: `fastest_precision`.

    Raises:
        TrainingError: for a precision that the device does not support.
    """
    # accelerate cannot change a precision in its state, only reset the state. It then finds the
    # processes again, unless they are already connected: a connection is kept.
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not connected)
    GradientState._reset_state()
    # All must train in the same precision, and each could measure a different one.
    if processes().is_main_process and not mixed_precision:
        mixed_precision = fastest_precision()
    (precision,) = broadcast_object_list([mixed_precision])
    try:
        accelerator = Accelerator(
            cpu=_on_cpu(),
            mixed_precision=precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulate),
            # A loss may skip a part of the model, for example if a batch has no thermal image.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except ValueError as error:
        raise TrainingError(f"mixed precision '{precision}': {error}") from error
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise TrainingError("mixed precision is 'fp16'; expected 'bf16' or 'no' on a CPU")
    return accelerator


def _on_cpu() -> bool:
    """Return whether accelerate will train on the CPU: `accelerate launch --cpu` asks for it."""
    return not torch.cuda.is_available() or bool(parse_flag_from_env("ACCELERATE_USE_CPU"))


@functools.cache
def _bf16_speedup() -> float:
    """Measure how many times as fast as float32 this CPU trains in bf16.

    The two take turns, and the best time of each counts: other load on the machine then affects
    both.
    """
    begun = time.monotonic()
    for kind in (False, True):  # the first pass of each prepares kernels and threads
        _seconds_of_a_pass(bf16=kind)
    float32 = bf16 = float("inf")
    for _ in range(_MEASURE_ROUNDS):
        float32 = min(float32, _seconds_of_a_pass(bf16=False))
        bf16 = min(bf16, _seconds_of_a_pass(bf16=True))
        if time.monotonic() - begun > _MEASURE_S:
            break
    return float32 / bf16


def _seconds_of_a_pass(bf16: bool) -> float:
    """Time convolutions of the networks' usual size, forwards and backwards.

    The inputs are constants: random draws would change the numbers that the run draws later.
    """
    layout = torch.channels_last
    image = torch.full((2, 32, 48, 64), 0.1).to(memory_format=layout).requires_grad_()
    weights = [
        torch.full((outputs, inputs, 3, 3), 0.01).to(memory_format=layout).requires_grad_()
        for inputs, outputs in ((32, 64), (64, 64), (64, 32))
    ]
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        x = image
        for weight in weights:
            x = F.relu(F.conv2d(x, weight, padding=1))
    x.float().mean().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - begun
