# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Training runs in processes of their own: to kill them, or to run two as one."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from test_data import scene

from magicfuse_training.data.crop_draws import CropConfig
from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.losses.image import weighted_l1
from magicfuse_training.model import MagicFuse
from magicfuse_training.optimizer import CosineSchedule, SGDConfig
from magicfuse_training.preset import Preset
from magicfuse_training.stages import trainer as trainer_module
from magicfuse_training.stages.stage import Stage
from magicfuse_training.stages.trainer import Trainer

# Fork from a process that has imported everything but computed nothing: it starts in no time, and
# the fork loses no thread pool.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["magicfuse_training.stages.trainer", "magicfuse_training.stages.stages", "torch._dynamo"]
)


def per_image_loss(model: MagicFuse, batch: Batch) -> dict[str, torch.Tensor]:
    """A mean over images, without draws: the mean of two halves equals that of the whole."""
    _, detail_4, detail_2 = model.encoder(batch["degraded"])
    latent = model.encoder.encode(batch["clean"])
    image = model.decoder(latent, detail_4, detail_2)
    return {"l1": weighted_l1(image, batch["clean"], torch.ones(len(image), 1, 1, 1))}


# Frozen statistics: each part of a batch would normalise by its own. SGD: AdamW divides by the size
# of a gradient, which amplifies the last bit of one that is nearly zero.
PER_IMAGE = Stage(
    "per_image",
    ("encoder", "decoder"),
    per_image_loss,
    (1.0, 1.0, 1.0),
    optimizer=SGDConfig(kind="sgd", learning_rate=0.05),
    schedule=CosineSchedule(warmup_steps=0),
    frozen_statistics=True,
)


def enliven(network: torch.nn.Module) -> None:
    """Give every layer an effect: none is left at zero."""
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


@dataclass(frozen=True)
class Job:
    """A run of a stage on three noise scenes."""

    stage: Stage
    folder: Path
    steps: int
    batch: int = 4
    accumulate: int = 1
    save_every_s: float = 120.0
    seed: int = 0


def small_crops(batch: int = 3, seed: int = 0, undegraded: bool = False) -> Crops:
    """Return crops of three scenes: plain, with thermal, at night."""
    groups = [[scene(True, False)], [scene(True, True)], [scene(False, True)]]
    config = CropConfig(height=64, width=96, batch=batch)
    return Crops(groups, [1.0, 1.0, 1.0], config, seed, undegraded)


def train(preset: Preset, jobs: list[Job], workers: int = 0) -> None:
    """Run jobs in this process, one after the other, in float32 on one thread."""
    torch.set_num_threads(1)
    for job in jobs:
        trainer_module.SAVE_EVERY_S = job.save_every_s
        torch.manual_seed(0)
        trainer = Trainer(
            job.stage,
            MagicFuse(preset),
            job.folder,
            steps=job.steps,
            accumulate=job.accumulate,
            mixed_precision="no",
        )
        trainer.run(small_crops(job.batch, job.seed), workers)


def start(preset: Preset, jobs: list[Job], workers: int = 0) -> BaseProcess:
    """Start a process that runs jobs."""
    process = _context.Process(target=train, args=(preset, jobs, workers))
    process.start()
    return process


def start_two(preset: Preset, jobs: list[Job]) -> list[BaseProcess]:
    """Start two processes that run each job together."""
    return start_two_of(train, preset, jobs)


def start_two_of(work: Callable[..., None], *arguments: object) -> list[BaseProcess]:
    """Start two connected processes that do some work, as `accelerate launch --cpu` does."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    processes: list[BaseProcess] = [
        _context.Process(target=_work_as, args=(rank, port, work, arguments)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    return processes


def _work_as(
    rank: int, port: int, work: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    os.environ |= {
        "ACCELERATE_USE_CPU": "true",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    work(*arguments)
