# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Crops made by workers: no shared memory, errors on one line, Ctrl-C only for the trainer."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from training_process import small_crops

from magicfuse_training.data import device_crops
from magicfuse_training.data.crops import Batch, Crops
from magicfuse_training.data.device_crops import DeviceCrops
from magicfuse_training.data.errors import DataError
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages import loading
from magicfuse_training.stages.accelerator import make_accelerator
from magicfuse_training.stages.loading import load_parts, remedies
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer


class Faulty(Crops):
    """Crops that raise in their third part."""

    dies = False

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        if indices[0] < 6:
            return super().__getitem__(indices)
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError("'x.png' is damaged")


def faulty(dies: bool) -> Faulty:
    crops = small_crops()
    made = Faulty(crops.groups, [1.0, 1.0, 1.0], crops.config, 0)
    made.dies = dies
    return made


def exit_code(check: Callable[[], None]) -> int | None:
    """Run a check that forks in a process of its own, as training does; 0: it passed."""
    process = multiprocessing.get_context("spawn").Process(target=check)
    process.start()
    process.join()
    return process.exitcode


def _same_crops_and_no_tensor() -> None:
    accelerator = make_accelerator(1, "no")
    sent = loading._ByPipe(small_crops())[range(3)]
    assert isinstance(sent, dict) and not any(map(torch.is_tensor, sent.values()))
    alone, by_worker = (load_parts(small_crops(), 0, 1, n, accelerator) for n in (0, 1))
    for _ in range(2):
        ours, theirs = next(alone), next(by_worker)
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]) and tensor.dtype == theirs[name].dtype


def _errors_of_workers() -> None:
    parts = load_parts(faulty(dies=False), 0, 1, 1, make_accelerator(1, "no"))
    with pytest.raises(DataError, match=r"^'x.png' is damaged$"):
        for _ in range(3):
            next(parts)
    parts = load_parts(faulty(dies=True), 0, 1, 1, make_accelerator(1, "no"))
    words = r"one of the 1 workers .*DataLoader worker .*--workers 0"
    with pytest.raises(TrainingError, match=words), remedies(1):
        for _ in range(3):
            next(parts)


def test_workers_make_the_same_crops_and_send_no_tensor_which_takes_shared_memory() -> None:
    assert exit_code(_same_crops_and_no_tensor) == 0


def test_an_error_in_a_worker_and_its_death_are_one_line_with_the_remedy() -> None:
    assert exit_code(_errors_of_workers) == 0


def test_workers_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.DataLoader, "__iter__", fail)
    with pytest.raises(TrainingError, match="No space left on device in /dev/shm; give --workers"):
        load_parts(small_crops(), 0, 1, 1, make_accelerator(1, "no"))


def test_scenes_that_a_device_cannot_hold_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_crops, "free_memory", lambda _: 10 * 240 * 320 * 2)
    crops = small_crops()
    with pytest.raises(DataError, match=r"for 3 scenes of 240x320, .*: expected at most 2 scenes"):
        DeviceCrops(crops.groups, [1.0] * 3, crops.config, 0, torch.device("cpu"), (240, 320))


def test_what_an_earlier_stage_left_in_a_gpus_cache_counts_as_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = [1]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[-1], 9))
    assert device_crops.free_memory(torch.device("cuda")) == 9


def test_memory_that_runs_out_is_an_error_with_the_remedy() -> None:
    with pytest.raises(TrainingError, match=r"memory is full: CUDA .*--batch"), remedies(0):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    with pytest.raises(RuntimeError, match="shapes"), remedies(0):
        raise RuntimeError("shapes do not fit")


def test_ctrl_c_keeps_the_step_that_was_under_way(
    small_preset: Preset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    press_ctrl_c: Callable[[], None],
) -> None:
    step = Trainer.train_step

    def interrupted(self: Trainer, *arguments: Any, **named: Any) -> dict[str, float]:
        if self.at.step == 1:
            press_ctrl_c()
        return step(self, *arguments, **named)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    trainer = Trainer(STAGES["ikr"], MagicFuse(small_preset), tmp_path, steps=9)
    with pytest.raises(KeyboardInterrupt, match=r"after step 2 of stage 'ikr', .* resumes there"):
        trainer.run(small_crops(), 0)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _train_until_killed(worker: Connection) -> None:
    """Make batches that nobody takes, as a training process does, and tell who the worker is."""
    parts = load_parts(small_crops(), 0, 1, 1, make_accelerator(1, "no"))
    next(parts)
    (child,) = multiprocessing.active_children()
    worker.send(child.pid)
    time.sleep(60)


def test_workers_end_when_the_training_process_is_killed() -> None:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    trainer = context.Process(target=_train_until_killed, args=(theirs,))
    trainer.start()
    worker = ours.recv()
    time.sleep(1)  # it fills its pipe
    trainer.kill()
    trainer.join()
    end = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()
