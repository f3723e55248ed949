"""What a backend is: tensors, networks, and the library that runs and builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.engine_cache import Precision

Tensor: TypeAlias = Any  # a backend's own handle; a numpy array on the CPU backends
Stamp: TypeAlias = Any  # a backend's own mark of a time

# Calls networks on tensors and downloads what it returns; both are looked up by name.
Work: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, npt.NDArray[Any]]]


class Network(Protocol):
    """One loaded network."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network once on tensors that have exactly the shapes of its `NetworkSpec`.

        The outputs stay valid until the second next call of the same network, so that `z_next`
        may be the `z` of the following step. `Backend.download` makes them permanent.
        """


@dataclass(frozen=True)
class Part:
    """A network that is to be joined with others."""

    name: str
    path: Path
    spec: NetworkSpec


# Calls networks, by their names, on the inputs and on tensors that are always the same; returns
# what is wanted of it. It must make the same calls every time, and leave values unread.
JoinedWork: TypeAlias = Callable[
    [Mapping[str, Network], Mapping[str, Tensor]], Mapping[str, Tensor]
]


class Joined(Network, Protocol):
    """Several networks as one. Its outputs stay valid until its next call."""

    def shares(self) -> Mapping[str, float]:
        """Return what part of a call's time each network took, 0 to 1, as far as is known."""


class Recorder(Protocol):
    """Does one and the same work for frame after frame."""

    def __call__(
        self, inputs: Mapping[str, npt.NDArray[Any]], work: Work
    ) -> dict[str, npt.NDArray[Any]]:
        """Upload the inputs, do the work on them and return its results, which no call overwrites.

        A GPU does the work once to warm up, records it, and from then on repeats the record: `work`
        is not called again. So it must make the same calls every time, whatever the values, take
        all that changes from `inputs`, and leave what it downloads unread.

        Args:
            inputs: by name, of the same shapes and dtypes in every call.
            work: the same in every call.

        Raises:
            BackendError: if the device fails, or cannot record the work.
        """


class Backend(Protocol):
    """An inference library together with the device that it runs on.

    Not thread-safe, but for `load` and `join`, as far as `loads_at_once` says.
    """

    name: str
    version: str
    device: str
    precision: Precision
    loads_at_once: int  # networks that may be loaded at the same time
    records: bool  # the first frame of each kind takes longer, see `Recorder`

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Load a network: its built engine on a GPU, else the ONNX file itself.

        For int8, path and spec are those of the quantised graph, see `Bundle.quantized`.

        Raises:
            BackendError: if the file cannot be read or compiled, or if its inputs and outputs are
                not those of `spec`. The message names the file.
            EngineError: on a GPU, if no engine was built of this very file for this very device
                and library, or if the engine is damaged. The message says which, and the remedy.
        """

    def join(
        self, parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
    ) -> Joined | None:
        """Make one network of all that `work` does; None where a backend gains nothing by it.

        Args:
            parts: the networks that `work` calls, all of which load by themselves.
            inputs: of the joined network.
            work: called once, here.

        Raises:
            BackendError: if the joined network cannot be compiled.
        """

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Make an array usable as an input; it must not change while the tensor is in use."""

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a tensor as an array that no later call overwrites."""

    def recorder(self) -> Recorder:
        """Return what does one kind of frame; it ends with the networks that its work calls."""

    def stamp(self) -> Stamp:
        """Mark the time when the device has done all calls so far."""

    def elapsed_ms(self, start: Stamp, end: Stamp) -> float:
        """Return the milliseconds between two stamps of work that is done.

        Those of recorded work are taken anew whenever it is repeated.
        """


class BuildMonitor(Protocol):
    """Follows a build from its thread."""

    cancelled: bool  # set by another thread to end the build

    def step(self, phase: str, done: int, total: int) -> None:
        """Take note that `done` of `total` parts are finished, and that `phase` is in work."""


class Builder(Protocol):
    """Makes engines of ONNX files."""

    name: str
    version: str

    def devices(self, compute_capabilities: Sequence[str]) -> list[str]:
        """Return what to build for, as `EngineKey.device`: one engine each.

        Args:
            compute_capabilities: of GPUs, such as "8.9"; empty for the device of this machine.

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
            BackendError: naming the network and, where the library says so, operator and node.
        """
