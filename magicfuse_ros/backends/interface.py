# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What a backend is: tensors, networks, and the library that runs and builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy.typing as npt

from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.bundle import NetworkSpec, TensorSpec

Tensor: TypeAlias = Any  # a backend's own handle; a numpy array on the CPU backends
Stamp: TypeAlias = Any  # a backend's own time stamp

# A function that calls networks on named tensors, downloads the results and returns them by name.
Work: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, npt.NDArray[Any]]]


class Network(Protocol):
    """A loaded network."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network once on tensors that have exactly the shapes of its `NetworkSpec`.

        `z_next` stays valid during the next call of the same network, which may take it as `z`, and
        expires with the call after that. The same holds for the other outputs of a network that has
        `z_next`. The outputs of any other network expire with its next call. `Backend.download`
        makes outputs permanent.
        """


@dataclass(frozen=True)
class Part:
    """A network to join with others."""

    name: str
    path: Path
    spec: NetworkSpec


# A function that calls networks by name, on the inputs and on constant tensors, and returns the
# wanted outputs. It must make the same calls every time and must not read any values.
JoinedWork: TypeAlias = Callable[
    [Mapping[str, Network], Mapping[str, Tensor]], Mapping[str, Tensor]
]


class Joined(Network, Protocol):
    """Several networks compiled as one. Its outputs stay valid until its next call."""

    def shares(self) -> Mapping[str, float]:
        """Return the share of a call's time that each network took, 0 to 1, as far as is known."""


N = TypeVar("N", bound=Network)


class Recorder(Protocol):
    """Does the same work for every frame."""

    def __call__(
        self, inputs: Mapping[str, npt.NDArray[Any]], work: Work
    ) -> dict[str, npt.NDArray[Any]]:
        """Upload the inputs, do the work and return its results, which no later call overwrites.

        A GPU runs the work once to warm up, records it, and from then on replays the record without
        calling `work` again, unless it cannot record the work. So `work` must make the same calls
        every time, whatever the values, take everything that changes from `inputs`, and not read
        what it downloads.

        Args:
            inputs: arrays by name, with the same shapes and dtypes in every call.
            work: the same function in every call.

        Raises:
            BackendError: if the device fails.
        """


class Backend(Protocol):
    """An inference library and the device that it runs on.

    Not thread-safe, except that `loads_at_once` threads may call `load` and `join` at the same
    time, and `frames_at_once` threads may compute frames, each with a `twin` of every network.
    """

    name: str
    version: str
    device: str
    precision: Precision
    loads_at_once: int  # networks that may be loaded at the same time
    frames_at_once: int  # frames that may be computed at the same time
    records: bool  # if so, the first frame of each kind takes longer, see `Recorder`

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Load a network: its engine on a GPU, else the ONNX file itself.

        For int8, pass the path and spec of the quantised graph, see `Bundle.quantized`.

        Raises:
            BackendError: if the file cannot be read or compiled, or if its inputs and outputs are
                not those of `spec`. The message names the file.
            EngineError: on a GPU, if no engine was built from exactly this file for exactly this
                device and library, or if the engine is damaged. The message says which of the two
                it is and how to fix it.
        """

    def join(
        self, parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
    ) -> Joined | None:
        """Compile all that `work` does as one network; None if the backend gains nothing by it.

        Args:
            parts: the networks that `work` calls; each of them also loads on its own.
            inputs: the inputs of the joined network.
            work: called once or twice, during this call.

        Raises:
            BackendError: if the joined network cannot be compiled.
        """

    def twin(self, network: N) -> N:
        """Return a second instance of a loaded or joined network, for a simultaneous frame.

        Both share the compiled network.

        Raises:
            BackendError: if `frames_at_once` is 1 because the device cannot do more.
        """

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Return an array as an input tensor; it must not change while the tensor is in use."""

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a tensor as an array that no later call overwrites."""

    def recorder(self) -> Recorder:
        """Return a recorder for one kind of frame; it lives as long as the networks it calls."""

    def stamp(self) -> Stamp:
        """Mark the time at which the device has finished all calls so far."""

    def elapsed_ms(self, start: Stamp, end: Stamp) -> float:
        """Return the milliseconds between two stamps of finished work.

        Every replay of recorded work updates its stamps.
        """


class BuildMonitor(Protocol):
    """Follows a build from its thread."""

    cancelled: bool  # set by another thread to end the build

    def step(self, phase: str, done: int, total: int) -> None:
        """Note that `done` of `total` parts are finished and that `phase` is running."""


class Builder(Protocol):
    """Builds engines from ONNX files."""

    name: str
    version: str

    def devices(self, compute_capabilities: Sequence[str]) -> list[str]:
        """Return the devices to build for, as in `EngineKey.device`: one engine for each.

        Args:
            compute_capabilities: GPU capabilities such as "8.9"; empty for this machine's device.

        Raises:
            BackendError: if this machine has no device, or the library cannot build for one.
        """

    def build(
        self,
        path: Path,
        spec: NetworkSpec,
        device: str,
        precision: Precision,
        monitor: BuildMonitor,
    ) -> bytes:
        """Build one network.

        Raises:
            BackendError: if the build fails; the message names the network and, if the library
                reports them, the operator and the node.
        """
