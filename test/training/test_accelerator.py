# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The precision of a run: its own, independent of earlier runs; by default the fastest."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from training_process import small_crops, start_two_of

from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages import accelerator
from magicfuse_training.stages.accelerator import MixedPrecision, make_accelerator
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer

COMPUTED_IN = {"no": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ignore any GPU, and forget earlier measurements."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    accelerator._bf16_speedup.cache_clear()
    yield
    accelerator._bf16_speedup.cache_clear()


def accelerates_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}


@pytest.mark.parametrize("order", [("no", "bf16", "no"), ("bf16", "no", "bf16")])
def test_every_run_of_a_process_has_its_own_precision(
    order: tuple[MixedPrecision, ...], small_preset: Preset, tmp_path: Path
) -> None:
    before = accelerates_variables()
    for i, precision in enumerate(order):
        folder = tmp_path / str(i)
        model = MagicFuse(small_preset)
        seen: list[torch.dtype] = []
        for layer in model.encoder.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(lambda *call, seen=seen: seen.append(call[2].dtype))
        trainer = Trainer(
            STAGES["autoencoder"],
            model,
            folder,
            steps=1,
            accumulate=1 + 2 * (i % 2),
            mixed_precision=precision,
        )
        trainer.run(small_crops(), workers=0)
        assert set(seen) == {COMPUTED_IN[precision]}
        assert trainer.accelerator.mixed_precision == precision
        assert trainer.accelerator.gradient_accumulation_steps == 1 + 2 * (i % 2)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["mixed_precision"] == precision
    assert accelerates_variables() == before, "the next run would read them"


def test_a_variable_of_accelerate_changes_no_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert make_accelerator(1, "no").mixed_precision == "no"


def test_a_precision_that_a_cpu_lacks_leaves_nothing_behind() -> None:
    with pytest.raises(TrainingError, match="fp16"):
        make_accelerator(1, "fp16")
    assert make_accelerator(1, "no").mixed_precision == "no"


def test_a_run_starts_on_its_own_device_and_with_its_own_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as other:
        other.setenv("ACCELERATE_TORCH_DEVICE", "meta")
        broken_off = make_accelerator(2, "no")
    assert broken_off.device.type == "meta"
    broken_off.gradient_state._set_sync_gradients(False)  # between the parts of a batch
    fresh = make_accelerator(2, "no")
    assert fresh.device.type == "cpu" and fresh.sync_gradients


def note_precisions(folder: Path) -> None:
    """Record the precisions of three runs in one of two processes that would choose differently."""
    rank = os.environ["RANK"]
    accelerator.fastest_precision = lambda: "bf16" if rank == "0" else "no"
    notes = []
    for wanted in (None, "no", None):
        made = make_accelerator(1, wanted)
        total = made.reduce(torch.ones(1), "sum")
        notes.append(f"{made.mixed_precision} {made.num_processes} {int(total)}")
    (folder / rank).write_text(", ".join(notes))


def test_two_processes_share_the_first_ones_choice_in_every_run(tmp_path: Path) -> None:
    for process in start_two_of(note_precisions, tmp_path):
        process.join(60)
        assert process.exitcode == 0
    notes = {(tmp_path / rank).read_text() for rank in ("0", "1")}
    assert notes == {"bf16 2 2, no 2 2, bf16 2 2"}


@pytest.mark.parametrize(
    ("flags", "speedup", "expected"),
    [
        ("flags : fpu avx2 avx512_bf16 amx_bf16", 3.0, "bf16"),
        ("Features : fp asimd bf16", 1.2, "bf16"),
        ("flags : fpu avx2 avx512_bf16", 1.1, "no"),  # native, but not worth it
        ("flags : fpu avx2 avx512_bf16", 0.5, "no"),
        ("flags : fpu avx2 avx512f", None, "no"),  # not even tried: emulated, it takes long
        (None, None, "no"),
    ],
)
def test_a_cpu_trains_in_bf16_only_where_that_is_measured_to_be_faster(
    flags: str | None,
    speedup: float | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[bool] = []

    def seconds(bf16: bool) -> float:
        assert speedup is not None
        passes.append(bf16)
        busy = 5.0 if len(passes) in (2, 4, 5) else 0.0  # by other work
        return busy + (1.0 if bf16 else speedup)

    monkeypatch.setattr(accelerator, "_seconds_of_a_pass", seconds)
    monkeypatch.setattr(accelerator, "_CPU_FLAGS", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert accelerator.fastest_precision() == expected
    measured = len(passes)
    assert bool(measured) == (speedup is not None)
    assert all(a != b for a, b in pairwise(passes)), "the two take turns"
    assert accelerator.fastest_precision() == expected and len(passes) == measured, "once only"


def test_the_measurement_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    assert accelerator._bf16_speedup() > 0
    assert torch.equal(torch.get_rng_state(), before)
