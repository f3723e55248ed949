# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Records the actual inputs of a bundle's networks while frames are fused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends.interface import Network, Tensor
from magicfuse_ros.backends.onnxruntime import OnnxRuntimeBackend
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName, NetworkSpec
from magicfuse_ros.fuser import Fuser
from magicfuse_training.arrays import U8
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.files import read_image
from magicfuse_training.degradations import Degradation, degrade

Arrays = Mapping[str, npt.NDArray[Any]]
Calls = dict[NetworkName, list[Arrays]]
CONDITIONS: tuple[Degradation, ...] = ("clean", "dark", "haze")
STRENGTHS = (0.3, 0.6, 1.0)


def training_frames(root: Path, part: Literal[0, 1], count: int) -> Iterator[tuple[str, U8]]:
    """Yield names and images (H, W, 3) of training frames as a camera may deliver them.

    There are `count` evenly spaced frames of each condition: CamVid clean, dark and hazy, and MSRS
    by night.

    Args:
        root: folder of repacked `camvid` and `msrs`.
        part: selects every other file; the two parts share no file.
        count: frames of each of the four conditions.

    Raises:
        DataError: if a set has no training frame.
    """
    day = _spread(root / "camvid" / "train" / "vi", "*.jpg", part, count * len(CONDITIONS))
    for i, path in enumerate(day):
        kind = CONDITIONS[i % len(CONDITIONS)]
        strength = STRENGTHS[i // len(CONDITIONS) % len(STRENGTHS)]
        image = degrade(read_image(path), kind, strength, np.random.default_rng([part, i]))
        yield f"camvid train {path.stem} {kind}", image
    for path in _spread(root / "msrs" / "train" / "vi", "*N.jpg", part, count):
        yield f"msrs train {path.stem}", read_image(path)


def _spread(folder: Path, pattern: str, part: int, count: int) -> list[Path]:
    """Return up to `count` evenly spaced files of a part."""
    paths = sorted(folder.glob(pattern))[part::2]
    if not paths:
        raise DataError(f"'{folder}' holds too few {pattern}; expected training frames")
    return [paths[i * len(paths) // count] for i in range(count)] if len(paths) > count else paths


def record(bundle: Bundle, frames: Iterable[U8]) -> Calls:
    """Fuse frames in float32 with all outputs, cycling through K; return all inputs.

    Returns:
        The inputs of all calls of each network, by name, as numpy arrays.
    """
    backend = _RecordingBackend()
    fuser = Fuser(bundle, backend)
    for frame, steps in zip(frames, cycle(bundle.manifest.step_grids), strict=False):
        fuser.steps = steps
        fuser(frame)
    return {name: backend.calls[bundle.manifest.networks[name].file] for name in NETWORKS}


class _RecordingBackend(OnnxRuntimeBackend):
    """onnxruntime; it allocates new outputs for every call, so they are kept without a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[Arrays]] = {}

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        network = super().load(path, spec)
        calls = self.calls.setdefault(spec.file, [])

        def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            calls.append(dict(inputs))
            return network(inputs)

        return call
