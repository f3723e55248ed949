# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Feeds a process its parts of the batches."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from magicfuse_ros.errors import MagicFuseError
from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.data.device_crops import DeviceCrops
from magicfuse_training.errors import TrainingError

_PR_SET_PDEATHSIG = 1  # of prctl

Arrays = dict[str, npt.NDArray[Any]]


def load_parts(
    crops: Crops, first_step: int, accumulate: int, workers: int, accelerator: Accelerator
) -> Iterator[Batch]:
    """Yield a process's parts of the batches from step `first_step` on.

    A step's batch is `crops.config.batch` samples that no other step has, cut into equal parts:
    `accumulate` consecutive parts for the first process, as many for the second, and so on.
    accelerate's own loaders are not used, because they cut batches depending on the number of
    processes.

    Raises:
        TrainingError: if workers cannot be started.
        MagicFuseError: an error in a worker, such as a damaged data file.
    """
    batch = crops.config.batch
    size = batch // (accelerator.num_processes * accumulate)
    first_part = accelerator.process_index * accumulate
    starts = (
        step * batch + part * size
        for step in itertools.count(first_step)
        for part in range(first_part, first_part + accumulate)
    )
    parts = (range(start, start + size) for start in starts)
    if isinstance(crops, DeviceCrops):
        return _ahead(crops, parts)
    pinned = accelerator.device.type == "cuda"
    if not workers:
        return (_pinned(crops[part], pinned) for part in parts)
    return _by_workers(crops, parts, workers, pinned)


class _ByPipe(Dataset[Arrays | MagicFuseError]):
    """Crops as arrays, which travel through a pipe.

    Tensors would travel through shared memory. A container has only 64 MB of it, and torch's loader
    waits forever once it is full.
    """

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, part: Sequence[int]) -> Arrays | MagicFuseError:
        try:
            return {name: tensor.numpy() for name, tensor in self.crops[part].items()}
        except MagicFuseError as error:  # torch would turn it into a traceback's text
            return error


def _by_workers(
    crops: Crops, parts: Iterator[range], workers: int, pinned: bool
) -> Iterator[Batch]:
    """Start the workers now; yield their batches."""
    loader: DataLoader[Arrays | MagicFuseError] = DataLoader(
        _ByPipe(crops),
        batch_size=None,
        sampler=parts,
        num_workers=workers,
        prefetch_factor=6,
        multiprocessing_context="fork",  # workers share the scenes in memory
        collate_fn=_as_it_is,
        worker_init_fn=partial(_depend_on, os.getpid()),
    )
    try:
        made = iter(loader)
    except OSError as error:
        why = "" if error.errno in (errno.ENOMEM, errno.EAGAIN) else " in /dev/shm"
        raise TrainingError(
            f"the {workers} workers that make crops cannot be started: {error.strerror}{why}; "
            "give --workers 0"
        ) from error
    return _received(made, pinned)


@contextmanager
def remedies(workers: int) -> Iterator[None]:
    """Name the remedy if memory runs out or a worker dies; torch may raise this at any moment.

    Raises:
        TrainingError: instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in reason:
            raise TrainingError(
                f"memory is full: {reason}; give a smaller --batch, or less to --device-crops"
            ) from error
        if not reason.startswith("DataLoader worker"):
            raise
        raise TrainingError(
            f"one of the {workers} workers that make crops ended: {reason}; if memory is short, "
            "give --workers 0"
        ) from error


def _received(made: Iterator[Arrays | MagicFuseError], pinned: bool) -> Iterator[Batch]:
    for part in made:
        if isinstance(part, MagicFuseError):
            raise part
        tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in part.items()}
        yield _pinned(tensors, pinned)


def _as_it_is(part: Any) -> Any:
    """Keep torch from making tensors in the worker."""
    return part


def _depend_on(parent: int, _worker: int) -> None:
    """Ignore Ctrl-C, which reaches every process, and end when the training process ends.

    If the training process is killed, nobody reads the pipe any more, and torch's worker would wait
    at its exit until the pipe is empty, with all scenes in memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent had already ended
            os._exit(1)


def _pinned(batch: Batch, pinned: bool) -> Batch:
    return {name: tensor.pin_memory() for name, tensor in batch.items()} if pinned else batch


def _ahead(crops: Crops, parts: Iterator[range]) -> Iterator[Batch]:
    """Make the next batch in a thread while the previous step waits for the device."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(crops.__getitem__, next(parts))
        for part in parts:
            batch = coming.result()
            coming = pool.submit(crops.__getitem__, part)
            yield batch
