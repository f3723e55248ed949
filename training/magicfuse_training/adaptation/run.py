# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Adapts a bundle to a recording; every step is saved, so a killed run resumes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle, Provenance, write_manifest
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.media import open_source
from magicfuse_training.adaptation.check import Figures, compare
from magicfuse_training.adaptation.config import AdaptConfig
from magicfuse_training.adaptation.frames import (
    SELECTION,
    TRAIN,
    Selection,
    collect,
    kept_selection,
)
from magicfuse_training.adaptation.labels import label_frames, labelled_share, unlabelled
from magicfuse_training.adaptation.stage import adaptation_stage, interpolated, model_of, preset_of
from magicfuse_training.atomic import write_atomically
from magicfuse_training.data.mix import Source
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.bundle import current_commit, export_bundle, provenance
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.checkpoint import read_checkpoint
from magicfuse_training.stages.run_folder import check_same
from magicfuse_training.stages.runner import Budget, train_stage

SETTINGS, RECORD = "settings.json", "adapt.json"
OLD, DATA, BUNDLE = "old", "data", "bundle"  # folders


@dataclass(frozen=True)
class Recording:
    """A recording: see `open_source`."""

    path: Path
    topic: str | None = None


@dataclass(frozen=True)
class Adaptation:
    """Result of a run; nothing outside of its folder has been written yet.

    Attributes:
        bundle: the adapted bundle, in the run's folder; verified.
        figures: scores of both bundles on the held-out frames.
        misses: reasons to reject the new bundle; empty if it is accepted.
        selection: the frames.
        labelled: share of the training pixels that have a label, 0 to 1.
        minutes: training time.
    """

    bundle: Bundle
    figures: Figures
    misses: list[str]
    selection: Selection
    labelled: float
    minutes: float


def adapt(
    recording: Recording,
    bundle: Bundle,
    preset: Preset,
    folder: Path,
    budget: Budget,
    config: AdaptConfig | None = None,
    backend: str = "auto",
) -> Adaptation:
    """Adapt a bundle to the camera of a recording, in `folder`; resume a run that was killed.

    Args:
        recording: its frames need no labels.
        bundle: the bundle to adapt; it is copied first and never changed.
        preset: the preset of the bundle's networks.
        folder: folder of the run.
        budget: training budget.
        config: the settings; None: the default ones.
        backend: runs both bundles in float32; see `backends.select`.

    Raises:
        TrainingError: if the bundle cannot be trained further, the recording has too few usable
            frames or too few labels, or the folder holds a run with other settings.
        MagicFuseError: if something cannot be read, run or written.
    """
    config = config or AdaptConfig()
    preset = preset_of(bundle, preset)
    model_of(bundle, preset)  # fail now, not after an hour of labelling
    size = preset.height, preset.width
    data = folder / DATA
    if not _goes_on(folder / SETTINGS, settings := _settings(recording, bundle, config)):
        for other in (data, folder / BUNDLE):
            if other.exists() and not (data / SELECTION).is_file():
                raise TrainingError(f"'{other}' is not of an adaptation; use another --run")
        source = open_source(recording.path, recording.topic)
        shutil.rmtree(data, ignore_errors=True)
        collect(source, data, size, config)
        copied(bundle, folder / OLD)
        write_atomically(settings, folder / SETTINGS)
    bundle = Bundle.load(folder / OLD)  # its own folder may get another bundle overnight
    share = labelled(bundle, data / TRAIN, backend, config, budget)
    stage = adaptation_stage(config)
    start = f"{bundle.manifest.name} {bundle.fingerprint}"
    frames = [Source("folder", data)]
    trained = train_stage(
        stage, model_of(bundle, preset), folder / stage.name, frames, budget, start
    )
    checkpoint = folder / stage.name / "last.pt"
    seconds = read_checkpoint(checkpoint, {"elapsed"})["elapsed"]
    selection = kept_selection(data)
    made = _export(
        interpolated(model_of(bundle, preset), trained, config.share),
        folder / BUNDLE,
        f"{bundle.manifest.name}-adapted",
        _provenance(bundle, recording, selection.train, seconds / 60),
    )
    old_fuser, new_fuser = (
        Fuser(some, select(backend, precision="fp32")) for some in (bundle, made)
    )
    figures = compare(old_fuser, new_fuser, data, size, config.confident)
    result = Adaptation(made, figures, figures.misses(), selection, share, seconds / 60)
    _record(folder / RECORD, recording, bundle, result, config)
    return result


def publish(bundle: Bundle, out: Path, backend: str = "auto") -> None:
    """Copy a bundle to another folder, and fuse a frame with the copy.

    Raises:
        MagicFuseError: if the copy cannot be written, verified or run.
    """
    Fuser(copied(bundle, out), select(backend, precision="fp32")).warm_up()


def copied(bundle: Bundle, out: Path) -> Bundle:
    """Copy a bundle to another folder, with the manifest last; return the copy.

    Raises:
        MagicFuseError: if the copy cannot be written or verified.
    """
    specs = bundle.manifest.networks.values()
    files = [spec.file for spec in specs] + [spec.int8.file for spec in specs if spec.int8]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file in files:
            partial = out / f".{file}.partial"
            shutil.copyfile(bundle.root / file, partial)
            os.replace(partial, out / file)
        write_manifest(out, bundle.manifest)
    except OSError as error:
        raise TrainingError(f"cannot write bundle '{out}': {error}") from error
    return Bundle.load(out)


def labelled(
    bundle: Bundle, folder: Path, backend: str, config: AdaptConfig, budget: Budget
) -> float:
    """Label the unlabelled frames of a split; return the share of labelled pixels.

    Raises:
        TrainingError: if too few pixels are labelled to learn from.
        MagicFuseError: see `label_frames`.
    """
    if unlabelled(folder):
        task = (bundle.root, backend, folder, config.confident)
        if budget.workers:  # forked workers must not inherit threads of inference libraries
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
                other.submit(label_frames, *task).result()
        else:
            label_frames(*task)
    share = labelled_share(folder)
    if share < config.labelled:
        raise TrainingError(
            f"bundle '{bundle.root}' is sure of {share:.1%} of the recording's pixels; expected "
            f"at least {config.labelled:.0%}: there is too little to learn from"
        )
    return share


def _export(model: MagicFuse, folder: Path, name: str, made: Provenance) -> Bundle:
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed or is resuming
    manifest = export_bundle(model, folder, made)
    write_manifest(folder, manifest.model_copy(update={"name": name}))
    return Bundle.load(folder)


def _provenance(bundle: Bundle, recording: Recording, frames: int, minutes: float) -> Provenance:
    old = bundle.manifest.provenance
    note = (
        f"adapted from {bundle.manifest.name} (fingerprint {bundle.fingerprint[:12]}) for "
        f"{minutes:.1f} minutes with {frames} unlabelled frames of '{recording.path.name}'"
    )
    so_far = old.training_minutes
    return provenance(
        {**so_far, "adapt": round(so_far.get("adapt", 0.0) + minutes, 1)},
        current_commit(Path(__file__).parent),
        [*old.data, note],
        f"{old.weights_license}; the recording: your own",
    )


def _settings(recording: Recording, bundle: Bundle, config: AdaptConfig) -> str:
    """Return as JSON the settings that determine a run's frames and labels."""
    settings = {
        "recording": str(recording.path.resolve()),
        "topic": recording.topic,
        "bundle": bundle.fingerprint,
        **asdict(config),
    }
    return json.dumps(settings, indent=2) + "\n"


def _goes_on(path: Path, settings: str) -> bool:
    """Return whether a run already has its frames and can resume with the same settings.

    Raises:
        TrainingError: naming the first setting that differs, and both values.
    """
    if not path.exists():
        return False
    try:
        begun = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise TrainingError(f"'{path}' is damaged: {error}; use another --run") from error
    check_same(path.parent, begun, json.loads(settings), begun)
    return True


def _record(
    path: Path, recording: Recording, bundle: Bundle, result: Adaptation, config: AdaptConfig
) -> None:
    values = {
        "recording": str(recording.path),
        "topic": recording.topic,
        "bundle": {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint},
        "adapted": {"name": result.bundle.manifest.name, "fingerprint": result.bundle.fingerprint},
        "config": asdict(config),
        "frames": asdict(result.selection),
        "labelled": round(result.labelled, 4),
        "minutes": round(result.minutes, 2),
        "figures": asdict(result.figures),
        "limits": {row.name: row.limit for row in result.figures.rows()},
        "misses": result.misses,
    }
    write_atomically(json.dumps(values, indent=2) + "\n", path)
