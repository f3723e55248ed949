# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks that a loaded graph is the one that the bundle records; explains why a file fails."""

from __future__ import annotations

from pathlib import Path

from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.errors import BackendError


def check_graph(
    path: Path, spec: NetworkSpec, inputs: list[TensorSpec], outputs: list[TensorSpec]
) -> None:
    """Compare a loaded graph's inputs and outputs with those that the bundle records.

    Raises:
        BackendError: if a tensor differs; the message names the file and the first such tensor.
    """
    kinds = (("input", spec.inputs, inputs), ("output", spec.outputs, outputs))
    for kind, recorded, actual in kinds:
        wanted = {t.name: t for t in recorded}
        found = {t.name: t for t in actual}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise BackendError(
                    f"network '{path.name}': {kind} '{name}' is {_describe(found.get(name))}; "
                    f"the bundle records {_describe(wanted.get(name))}"
                )


def load_error(path: Path, backend: str, error: Exception) -> BackendError:
    """Return the error for a file that a library rejected, with the last line of its reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return BackendError(f"network '{path.name}': {backend} cannot load it: {reason}")


def _describe(tensor: TensorSpec | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
