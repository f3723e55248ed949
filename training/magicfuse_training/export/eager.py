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
from magicfuse_training.networks.model import MagicFuse


class EagerBackend(HostBackend):
    """Runs the graphs of a model uncompiled, on torch's own threads; see `Backend`."""

    name = "torch eager"
    device = "CPU"
    precision: Precision = "fp32"

    def __init__(self, model: MagicFuse) -> None:
        self.version: str = torch.__version__
        self._graphs = graphs(model.eval())

    def load(self, path: Path, spec: NetworkSpec) -> _Network:
        """Return the module behind an exported file; the file is not read."""
        return _Network(self._graphs[path.stem])

    def upload(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """Return a copy: torch needs writable arrays."""
        return torch.tensor(array)

    def download(self, tensor: torch.Tensor) -> npt.NDArray[Any]:
        """Return the tensor's own memory: every call allocates a new one."""
        array: npt.NDArray[Any] = tensor.numpy()
        return array


class _Network:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return eager(self._graph, {name: inputs[name] for name in self._graph.inputs})
