# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checkpoints: written completely or not at all, and refused if a run cannot resume from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magicfuse_training.atomic import replaced
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse


def fingerprint(model: torch.nn.Module) -> str:
    """Return a hash of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; see `replaced`."""
    with replaced(path) as partial:
        torch.save(state, partial)


def read_checkpoint(
    path: Path, keys: Iterable[str] = (), *, mapped: bool = False
) -> dict[str, Any]:
    """Read a checkpoint that has at least the given keys.

    Args:
        path: the file.
        keys: required keys.
        mapped: leave the tensors in the file until they are used: inspecting a checkpoint then
            takes no time.

    Raises:
        TrainingError: if it cannot be read, is damaged, or is not a checkpoint of a stage.
    """
    try:
        size = path.stat().st_size
        path.open("rb").close()
    except OSError as error:
        raise TrainingError(f"cannot read '{path}': {error.strerror}") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the exception depends on where the bytes are damaged
        raise TrainingError(
            f"'{path}' is damaged or not a checkpoint ({size} bytes); "
            "put a copy in its place, or delete it to restart the stage"
        ) from error
    if not isinstance(state, dict):
        raise TrainingError(f"'{path}' holds a {type(state).__name__}, and is not a checkpoint")
    if missing := sorted(set(keys) - state.keys()):
        raise TrainingError(
            f"'{path}' is not a checkpoint of a stage: it lacks {', '.join(missing)}; "
            f"it holds {', '.join(map(str, [*state][:5])) or 'nothing'}"
        )
    return state


def load_checkpoint(path: Path, keys: set[str]) -> dict[str, Any]:
    """Read a checkpoint to resume from.

    Raises:
        TrainingError: see `read_checkpoint`; also if keys are missing, as in an earlier version.
    """
    state = read_checkpoint(path, {"ema"})
    if missing := sorted(keys - state.keys()):
        raise TrainingError(
            f"'{path}' lacks {', '.join(missing)}: it can be exported or be the start of the next "
            "stage, but this stage cannot resume from it; to train it again, use another --run"
        )
    return state


def load_weights(model: MagicFuse, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of a checkpoint into a model.

    Raises:
        TrainingError: names the first weight that is missing, unexpected, or of another shape.
    """
    expected = model.state_dict()
    for name in expected | dict(weights):
        ours, theirs = (
            tuple(state[name].shape) if name in state else "missing"
            for state in (expected, weights)
        )
        if ours != theirs:
            raise TrainingError(
                f"'{path}' is of another model than preset '{model.preset.name}': "
                f"its {name} is {theirs}; expected {ours}"
            )
    model.load_state_dict(dict(weights))


def averaged_weights(path: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint.

    Raises:
        TrainingError: see `read_checkpoint`.
    """
    weights = read_checkpoint(path, {"ema"})["ema"]
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise TrainingError(
            f"'{path}' is not a checkpoint of a stage: its ema is not a set of weights"
        )
    return weights
