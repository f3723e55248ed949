# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What commands find in the folder of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from magicfuse_ros.bundle import MANIFEST
from magicfuse_training.console import say
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset
from magicfuse_training.stages.checkpoint import averaged_weights, load_weights, read_checkpoint
from magicfuse_training.stages.run_folder import read_yaml
from magicfuse_training.stages.stages import STAGES

_BASICS = ("autoencoder", "ikr", "ckg", "mkf")
# `distill` gives a run its first weights; the later stages go on from them.
ORDER = (*_BASICS, "distill", *(name for name in STAGES if name not in _BASICS))


def newest_checkpoint(run: Path, before: str | None = None) -> Path | None:
    """Return the checkpoint of the last stage that has one (before a given stage), or None.

    The order is that of the run's recipe, if it has one and `before` is None.

    Raises:
        TrainingError: if the run has stages, but none before the given one.
    """
    names: Sequence[str] = ORDER[: ORDER.index(before)] if before else ORDER
    if not before and (recipe := run / "recipe.yaml").is_file():
        names = [part.get("name") or part["stage"] for part in read_yaml(recipe)["stages"]]
    paths = [run / n / "last.pt" for n in reversed(names)]
    if found := next((p for p in paths if p.exists()), None):
        return found
    later = [n for n in ORDER if n not in names and (run / n / "last.pt").exists()]
    if names and later and before not in later:  # a stage that has begun only resumes
        raise TrainingError(
            f"run '{run}' has {', '.join(later)}, but no stage before '{before}' to start from; "
            "use another --run"
        )
    return None


def recorded_preset(checkpoint: Path) -> Preset | None:
    """Return the preset with which a checkpoint's stage was trained; None if not recorded.

    Raises:
        TrainingError: if this version cannot use it.
    """
    config, alone = checkpoint.parent / "config.yaml", checkpoint.parents[1] / "preset.yaml"
    try:
        if config.is_file():
            return Preset.model_validate(read_yaml(config)["preset"])
        return load_preset(str(alone)) if alone.is_file() else None
    except (KeyError, ValidationError) as error:
        raise TrainingError(
            f"'{config}' records a preset of another version of this package; give --preset"
        ) from error


def tell_replaced(out: Path) -> None:
    """Warn that a bundle folder already holds a bundle, which will be replaced."""
    if not (out / MANIFEST).is_file():
        return
    card = out / "MODEL_CARD.md"
    note = f"; '{card}' describes the old bundle until score --record" if card.is_file() else ""
    say(f"replaces the bundle in '{out}'{note}", "yellow")


def load_averaged(model: MagicFuse, checkpoint: Path) -> None:
    """Load a checkpoint's averaged weights.

    Raises:
        TrainingError: if it is damaged, is no checkpoint, or belongs to another preset.
    """
    load_weights(model, averaged_weights(checkpoint), checkpoint)


def minutes_of(run: Path, names: Sequence[str] = ORDER) -> dict[str, float]:
    """Return the training time of each named stage of a run."""
    paths = {name: run / name / "last.pt" for name in names}
    return {
        name: round(read_checkpoint(path, {"elapsed"})["elapsed"] / 60, 1)
        for name, path in paths.items()
        if path.exists()
    }
