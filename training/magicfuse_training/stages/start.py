# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Stages that start from a bundle's trained networks, including bundles of earlier commits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from magicfuse_ros.bundle import Bundle
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.weights import (
    NEUTRAL_AT_FIRST,
    exported_weights,
    load_weights,
    may_lack,
)
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.stage import Stage
from magicfuse_training.stages.stages import STAGES


def in_small_steps(stage: Stage) -> Stage:
    """Return a stage for trained networks: few_step's optimizer and their own batch statistics.

    A stage that is already for trained networks stays as it is.
    """
    if stage.frozen_statistics:
        return stage
    return replace(stage, optimizer=STAGES["few_step"].optimizer, frozen_statistics=True)


def load_bundle(
    model: MagicFuse, root: Path, renew: Sequence[str] = (), leave_out: Sequence[str] = ()
) -> Bundle:
    """Load a verified bundle's weights into a model, and return the bundle.

    `renew` and `leave_out`: see `load_weights`.

    Raises:
        BundleError: if it does not verify.
        TrainingError: if it does not match the model's preset, or has other classes.
    """
    bundle = Bundle.load(root)
    theirs = [c.name for c in bundle.manifest.classes]
    if theirs != (ours := [c.name for c in model.preset.classes]):
        raise TrainingError(
            f"bundle '{root}' has the classes {', '.join(theirs)}; expected those of preset "
            f"'{model.preset.name}': {', '.join(ours)}"
        )
    try:
        load_weights(model, bundle, renew, leave_out)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    return bundle


def weights_of_bundle(
    preset: Preset, root: Path, renew: Sequence[str] = (), leave_out: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the weights of a verified bundle, without those that some or all bundles lack.

    Weights that are zero at first are included, so that a mean takes its share of them. Weights
    whose names start with one of `renew` are left out, and so are those that are narrower there.
    """
    model = MagicFuse(preset)
    there = exported_weights(load_bundle(model, root, leave_out=leave_out))
    return {
        k: v
        for k, v in model.state_dict().items()
        if not k.startswith(tuple(renew))
        and (not may_lack(k) or k.startswith(NEUTRAL_AT_FIRST))
        and (k not in there or there[k].shape == v.shape)
    }


def write_bundle_of_commit(commit: str, path: str, inside: Path, folder: Path) -> None:
    """Write a bundle from a commit into `folder`, replacing its content.

    Args:
        commit: the full hash.
        path: the bundle's folder, from the root of the repository.
        inside: any folder inside the repository.
        folder: to write.

    Raises:
        TrainingError: if git, the repository, the commit or the bundle is missing.
    """
    root = Path(_git(inside, "rev-parse", "--show-toplevel").decode().strip())
    try:
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except TrainingError as error:
        shallow = _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true"
        remedy = "it is shallow: git fetch --unshallow" if shallow else "try git fetch"
        raise TrainingError(f"commit {commit} is not in the clone '{root}'; {remedy}") from error
    listed = _git(root, "ls-tree", "-z", commit, f"{path.rstrip('/')}/").decode()
    entries = [line.split("\t", 1) for line in listed.split("\0") if line]
    blobs = {Path(name).name: kind.split()[2] for kind, name in entries if " blob " in kind}
    if not blobs:
        raise TrainingError(f"commit {commit} of '{root}' has no bundle '{path}'")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, blob in blobs.items():
        (folder / name).write_bytes(_git(root, "cat-file", "blob", blob))


def _git(folder: Path, *arguments: str) -> bytes:
    """Run git in a folder and return what it prints.

    Raises:
        TrainingError: if git is missing or fails.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise TrainingError("a start from a commit needs git, which is not installed") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise TrainingError(f"git {arguments[0]} in '{folder}': {reason}") from error
