# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Eager torch as a backend: the reference for the vehicle's libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.host import HostBackend
from magicfuse_ros.bundle import NetworkSpec
from magicfuse_training.export.compare import eager
from magicfuse_training.export.graphs import Graph, graphs
from magicfuse_training.model import MagicFuse


class EagerBackend(HostBackend):
    """Runs the graphs of a model uncompiled, on torch's own threads; see `Backend`."""

    name = "torch eager"
    device = "CPU"
    precision: Precision = "fp32"

    def __init__(self, model: MagicFuse) -> None:
        self.version: str = torch.__version__
        self._graphs = graphs(model.eval())

    def load(self, path: Path, spec: NetworkSpec) -> _EagerNetwork:
        """Return the module behind an exported file; the file is not read."""
        return _EagerNetwork(self._graphs[path.stem])

    def upload(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """Return a copy: torch needs writable arrays."""
        return torch.tensor(array)

    def download(self, tensor: torch.Tensor) -> npt.NDArray[Any]:
        """Return the tensor's own memory: every call allocates a new one."""
        array: npt.NDArray[Any] = tensor.numpy()
        return array


class _EagerNetwork:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return eager(self._graph, {name: inputs[name] for name in self._graph.inputs})
