# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A run killed at any moment, and a run by two processes, end like an undisturbed run."""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from training_process import PER_IMAGE, Job, start, start_two

from magicfuse_training.optimizer import CosineSchedule, SGDConfig
from magicfuse_training.preset import Preset
from magicfuse_training.stages.stages import STAGES


def checkpoint(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    return state


def wait_for_step(folder: Path, step: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (folder / "last.pt").exists() and (now := int(checkpoint(folder)["step"])) >= step:
            return now
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step} within 60 s")


def assert_same(a: Any, b: Any, place: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{place}.{i}")
    else:
        assert a == b, place


def test_a_run_killed_at_random_moments_ends_bit_equal_to_one_that_was_not(
    small_preset: Preset, tmp_path: Path
) -> None:
    stage = STAGES["ikr"]  # draws from python and torch, and trains batch statistics
    steps = 30
    whole = start(small_preset, [Job(stage, tmp_path / "whole", steps)], workers=1)
    job = Job(stage, tmp_path / "killed", steps, save_every_s=0.0)
    step, kills = 0, []
    rng = random.Random(5)
    for _ in range(3):
        process = start(small_preset, [job], workers=1)
        step = wait_for_step(job.folder, step + 3)
        time.sleep(rng.uniform(0, 0.1))
        if process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGKILL)
            kills.append(step)
        process.join()
    last = start(small_preset, [job], workers=1)
    for process in (last, whole):
        process.join()
        assert process.exitcode == 0
    assert len(kills) >= 2, kills
    killed, uninterrupted = checkpoint(job.folder), checkpoint(tmp_path / "whole")
    assert killed["step"] == steps
    for key in ("model", "ema", "optimizer", "means", "skipped"):
        assert_same(killed[key], uninterrupted[key], key)
    starts = (job.folder / "environment.jsonl").read_text().splitlines()
    assert 2 <= len(starts) <= 1 + len(kills), "some may be killed before they wrote theirs"
    lines = (job.folder / "log.jsonl").read_text().splitlines()
    assert len(lines) == 1, "lines of killed processes are done again"


def test_two_processes_end_where_one_does_at_equal_total_batch(
    small_preset: Preset, tmp_path: Path
) -> None:
    # A real loss draws noise and divides by its part's valid pixels. One process that takes the
    # batch in two parts gives the same result.
    real = replace(
        STAGES["few_step"],
        optimizer=SGDConfig(kind="sgd", learning_rate=0.002),
        schedule=CosineSchedule(warmup_steps=0),
    )
    one = tmp_path / "one"
    two = tmp_path / "two"
    jobs = [Job(PER_IMAGE, two / "per_image", 5), Job(real, two / "real", 5)]
    processes = start_two(small_preset, jobs)
    single = start(
        small_preset,
        [
            Job(PER_IMAGE, one / "per_image", 5),
            Job(PER_IMAGE, one / "start", 1),
            Job(real, one / "real", 5, accumulate=2),
        ],
    )
    for process in (*processes, single):
        process.join(120)
        assert process.exitcode == 0
    for name in ("per_image", "real"):
        ours, theirs = (checkpoint(f / name)["model"] for f in (one, two))
        for key, value in ours.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-5, atol=1e-6, msg=key)
    trained, begun = checkpoint(two / "per_image")["model"], checkpoint(one / "start")["model"]
    moved = max(float((trained[k] - begun[k]).abs().max()) for k in trained)
    assert moved > 1e-3, "the comparison needs weights that moved"
    starts = (two / "real" / "environment.jsonl").read_text().splitlines()
    assert len(starts) == 1 and '"processes": 2' in starts[0], "only the first process writes"
    events = list((two / "real" / "tensorboard").iterdir())
    assert len(events) == 1
