"""Feeds a process its parts of the batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from accelerate import Accelerator
from torch.utils.data import DataLoader

from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.data.device_crops import DeviceCrops


def load_parts(
    crops: Crops, first_step: int, accumulate: int, workers: int, accelerator: Accelerator
) -> Iterator[Batch]:
    """Yield a process's parts of the batches of step `first_step` and all that follow.

    A step's batch is `crops.config.batch` samples that no other step has, cut into equal parts:
    `accumulate` in a row for the first process, as many for the second, and so on. accelerate's
    own loaders are not used: how they cut batches depends on the number of processes.
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
    loader: DataLoader[Batch] = DataLoader(
        crops,
        batch_size=None,
        sampler=parts,
        num_workers=workers,
        prefetch_factor=6 if workers else None,
        # Workers share the scenes in memory, and end when their process is killed.
        multiprocessing_context="fork" if workers else None,
        pin_memory=accelerator.device.type == "cuda",
    )
    return iter(loader)


def _ahead(crops: Crops, parts: Iterator[range]) -> Iterator[Batch]:
    """Make the next batch in a thread, while the step of the last one waits for the device."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(crops.__getitem__, next(parts))
        for part in parts:
            batch = coming.result()
            coming = pool.submit(crops.__getitem__, part)
            yield batch
