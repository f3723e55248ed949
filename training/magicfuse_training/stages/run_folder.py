# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The records of a run, which explain its weights and allow it to be repeated.

config.yaml         preset, stage, seed, precision: everything that determines the result
data.tsv            the training files: name, size, SHA-256 of their first 64 KiB
environment.jsonl   one line for every start: versions, device, threads, commit
log.jsonl           losses, rate and speed over the steps
tensorboard/        the same as curves, and pictures of a fixed batch
last.pt             the checkpoint
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import cv2
import torch
import yaml
from pydantic import TypeAdapter

from magicfuse_training.atomic import write_atomically
from magicfuse_training.data.crop_draws import CropConfig
from magicfuse_training.data.layout import PARTS, Record
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.bundle import current_commit
from magicfuse_training.optimizer import OptimizerConfig, ScheduleConfig
from magicfuse_training.preset import Preset
from magicfuse_training.stages.accelerator import MixedPrecision
from magicfuse_training.stages.checkpoint import read_checkpoint
from magicfuse_training.stages.stage import Stage

HASHED_BYTES = 65536  # of a file: label and box files are smaller, photos already differ here
# A run may be extended, and its start may have moved, as long as its weights are the same.
MAY_CHANGE = ("budget", "start")

Config = dict[str, Any]


def run_config(stage: Stage, crops: CropConfig, preset: Preset, **others: Any) -> Config:
    """Return the resolved configuration of a run as plain YAML values."""
    return {
        **others,
        "stage": {
            "name": stage.name,
            "trained": list(stage.trained),
            "condition_weights": list(stage.condition_weights),
            "frozen_statistics": stage.frozen_statistics,
            "optimizer": TypeAdapter(OptimizerConfig).dump_python(stage.optimizer, mode="json"),
            "schedule": TypeAdapter(ScheduleConfig).dump_python(stage.schedule, mode="json"),
            "crops": TypeAdapter(CropConfig).dump_python(crops, mode="json"),
        },
        "preset": preset.model_dump(mode="json"),
    }


def data_rows(folders: Iterable[Path]) -> list[str]:
    """Return a line for every file below some folders: name, bytes, SHA-256 of the first 64 KiB.

    Tens of thousands of files take seconds. This detects a file that was added, lost, replaced or
    re-encoded, but does not prove that no file was tampered with.
    """
    return [
        _row(Path(folder.parent.name, folder.name, path.relative_to(folder)), path)
        for folder in folders
        for path in _files(folder)
    ]


def scene_rows(records: Iterable[tuple[Path, Record]]) -> list[str]:
    """Return the same lines for the files of some scenes, each with the root of its set.

    Other files beside them do not count: a run may lie among its data.
    """
    files = {
        path: Path(root.resolve().name, os.path.relpath(path, root))
        for root, record in records
        for part in PARTS
        if (path := getattr(record, part)) is not None
    }
    return [_row(name, path) for path, name in files.items()]


def _row(name: Path, path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(HASHED_BYTES)).hexdigest()
    shown = name.as_posix().replace("\n", "\\n")
    return f"{shown}\t{path.stat().st_size}\t{digest}"


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, also below links to other folders."""
    found: list[Path] = []
    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := Path(place).resolve()) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in files if (path := Path(place, name)).is_file()]
    return sorted(found)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a stage's folder for this process within the block.

    Raises:
        TrainingError: if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"another process trains in '{folder}'; wait for it, or use another --run"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Return what a result can depend on besides the configuration and the data."""
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numpy", "accelerate")},
        "opencv": cv2.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "commit": current_commit(Path(__file__).parent),
    }


def recorded_precision(folder: Path) -> MixedPrecision | None:
    """Return the precision of a run to resume; None if there is no run, or it is not known.

    A run keeps its precision: a new measurement may prefer another one.
    """
    path = folder / "config.yaml"
    if not (folder / "last.pt").exists() or not path.is_file():
        return None
    recorded = dict(flat(read_yaml(path))).get("mixed_precision")
    known: tuple[MixedPrecision, ...] = get_args(MixedPrecision)
    return next((precision for precision in known if precision == recorded), None)


def check_same(
    run: Path, old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str]
) -> None:
    """Compare settings with which a run was started with those that it has now.

    Raises:
        TrainingError: names the first of `keys` whose values differ, and both values.
    """
    for key in keys:
        before, now = old.get(key, "not set"), new.get(key, "not set")
        if key not in old and now is None:
            continue  # an optional key that is newer than the run
        if before != now:
            raise TrainingError(
                f"run '{run}' was started with {key} {before}, and now has {now}; "
                "give it as before, or use another --run"
            )


def check_unchanged(folder: Path, config: Config, rows: Sequence[str]) -> None:
    """Compare a resumed run with the records of its start.

    Raises:
        TrainingError: names the first key or file that differs, and both values.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise TrainingError(f"'{folder}' holds last.pt but no config.yaml; use another --run")
    old = dict(flat(read_yaml(path)))
    new = dict(flat(config))
    check_same(folder, old, new, [k for k in new | old if k.split(".")[0] not in MAY_CHANGE])
    try:
        text = (folder / "data.tsv").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise TrainingError(f"'{folder / 'data.tsv'}' cannot be read: {error}") from error
    known = [row for row in text.split("\n") if row]
    if changed := sorted(set(known) ^ set(rows)):
        name = changed[0].split("\t")[0]
        raise TrainingError(
            f"run '{folder}' was started with other data: {name} differs "
            f"({len(known)} files then, {len(rows)} now); use another --run"
        )
    if known != list(rows):
        raise TrainingError(
            f"run '{folder}' was started with the same data in another order; give --data as "
            "before, or use another --run"
        )


def write_start(folder: Path, config: Config, rows: Sequence[str]) -> None:
    """Write config.yaml and data.tsv."""
    write_atomically(yaml.safe_dump(config, sort_keys=False), folder / "config.yaml")
    write_atomically("".join(f"{row}\n" for row in rows), folder / "data.tsv")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one of the YAML files that a run writes.

    Raises:
        TrainingError: if it cannot be read or is damaged.
    """
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"cannot read '{path}': {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"'{path}' is damaged: {error}") from error
    if not isinstance(values, dict):
        raise TrainingError(f"'{path}' is damaged: it holds no keys; use another --run")
    return values


def untrained(folder: Path) -> str | None:
    """Return a warning if a stage was too short or is not finished, else None (or not known)."""
    path, checkpoint = folder / "config.yaml", folder / "last.pt"
    if not path.is_file() or not checkpoint.is_file():
        return None
    config = dict(flat(read_yaml(path)))
    warmup = config.get("stage.schedule.warmup_steps", 0)
    state = read_checkpoint(checkpoint, {"step", "elapsed"}, mapped=True)
    steps, minutes = state["step"], state["elapsed"] / 60
    budget = _last_budget(folder)
    wanted_steps, wanted = budget.get("steps"), budget.get("minutes")
    if (wanted_steps and steps < wanted_steps) or (wanted and minutes < wanted):
        done = f"{steps} of {wanted_steps} steps" if wanted_steps else ""
        done = done or f"{minutes:.1f} of {wanted:g} minutes"
        return (
            f"stage '{folder.name}' is not finished: it did {done}, and its learning rate falls "
            "to the end; repeat its command"
        )
    if steps >= warmup or wanted_steps == 0:  # without steps, a recipe only cuts or converts
        return None
    return (
        f"stage '{folder.name}' is untrained: it did {steps} steps, and its learning rate rises "
        f"over the first {warmup}; give it a larger budget"
    )


def _last_budget(folder: Path) -> dict[str, Any]:
    """Return the budget with which a stage went on last; empty if that is not recorded."""
    path = folder / "environment.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        return dict(json.loads(lines[-1])["budget"]) if lines else {}
    except (ValueError, KeyError):  # the process was killed while it wrote the line
        return {}


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append a line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the lines of steps that a killed run will repeat from its checkpoint."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, TypeError, KeyError):  # truncated by the kill
            continue
    write_atomically("".join(f"{line}\n" for line in kept), path)


def flat(values: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from flat(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, list) and any(isinstance(v, dict) for v in values):
        for i, value in enumerate(values):
            yield from flat(value, f"{place}.{i}")
    else:
        yield place, values
