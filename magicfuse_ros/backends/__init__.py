"""Inference backends: what turns the ONNX files of a bundle into callables on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy.typing as npt

from magicfuse_ros.backends.cuda import missing_device
from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.engine_cache import PRECISIONS, Precision
from magicfuse_ros.errors import BackendError

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


@dataclass(frozen=True)
class _Library:
    package: str
    backend: str  # a class of the module of the backend's name
    builder: str = ""  # module.class; empty where there is nothing to build
    gpu: bool = False
    precisions: tuple[Precision, ...] = ("fp32",)


# "auto" tries them in this order
_LIBRARIES = {
    "tensorrt_rtx": _Library(
        package="tensorrt-rtx",
        backend="TensorRtRtxBackend",
        builder="tensorrt_build.TensorRtRtxBuilder",
        gpu=True,
        precisions=("fp32", "fp16", "int8"),
    ),
    "tensorrt": _Library(
        package="tensorrt",
        backend="TensorRtBackend",
        builder="tensorrt_build.TensorRtBuilder",
        gpu=True,
        precisions=("fp32", "fp16", "int8"),
    ),
    "openvino": _Library(
        package="openvino",
        backend="OpenVinoBackend",
        builder="openvino.OpenVinoBackend",
        precisions=("fp32", "int8"),
    ),
    "onnxruntime": _Library(
        package="onnxruntime", backend="OnnxRuntimeBackend", precisions=("fp32", "int8")
    ),
}
BACKENDS: tuple[str, ...] = ("auto", *_LIBRARIES)
BUILDERS: tuple[str, ...] = tuple(name for name, entry in _LIBRARIES.items() if entry.builder)


@dataclass(frozen=True)
class Choice:
    """Which backend is used, and why."""

    asked: str
    used: str
    why: str

    def __str__(self) -> str:
        return f"{self.used}: {self.why}"


def choose(name: str = "auto", precision: Precision = "fp32") -> Choice:
    """Return the backend to use; `auto` takes the first of `BACKENDS` that can run here.

    Args:
        name: one of `BACKENDS`.
        precision: of the networks' arithmetic.

    Raises:
        BackendError: if the backend is not known or cannot run here. A named backend is never
            replaced by another one.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend '{name}' is not known; expected one of {', '.join(BACKENDS)}")
    if name != "auto":
        if obstacle := _obstacle(name, precision):
            usable = [n for n in _LIBRARIES if not _obstacle(n, precision)]
            raise BackendError(
                f"backend '{name}' {obstacle}; available here: {', '.join(usable) or 'none'}"
            )
        return Choice(name, name, "asked for")
    passed_over: list[str] = []
    for candidate in _LIBRARIES:
        if not (obstacle := _obstacle(candidate, precision)):
            return Choice(name, candidate, "; ".join(["auto", *passed_over]))
        passed_over.append(f"{candidate} {obstacle}")
    raise BackendError(f"no inference backend can run here: {'; '.join(passed_over)}")


def select(name: str = "auto", threads: int = 0, precision: Precision = "fp32") -> Backend:
    """Return the backend that `choose` names.

    Args:
        name: one of `BACKENDS`.
        threads: CPU threads of one network call; 0 takes all cores. A GPU takes no notice.
        precision: of the networks' arithmetic; fp16 on a GPU only, int8 of bundles that have it.

    Raises:
        BackendError: as `choose`, or if `threads` is negative.
    """
    used = choose(name, precision).used
    if threads < 0:
        raise BackendError(f"threads is {threads}; expected 0 (all cores) or more")
    create = getattr(_module(used), _LIBRARIES[used].backend)
    gpu = _LIBRARIES[used].gpu
    return cast(Backend, create(precision) if gpu else create(threads, precision))


def builder(name: str, precision: Precision = "fp32") -> Builder:
    """Return what builds engines for a backend. The GPU itself may be elsewhere, see `Builder`.

    Raises:
        BackendError: if the backend is not known or not installed, has no engines, or does not
            compute in `precision`.
    """
    library = _LIBRARIES.get(name)
    known = ", ".join(BUILDERS)
    if library is None:
        raise BackendError(f"backend '{name}' is not known; expected one of {known}")
    if not library.builder:
        raise BackendError(
            f"backend '{name}' has nothing to build: it loads the bundle's ONNX files themselves, "
            f"at once; expected one of {known}"
        )
    if obstacle := _wrong_precision(name, precision) or _not_installed(name):
        raise BackendError(f"backend '{name}' {obstacle}")
    module, class_name = library.builder.split(".")
    try:
        create = getattr(_module(module), class_name)
        return cast(Builder, create() if library.gpu else create(precision=precision))
    except ImportError as error:  # what only a build needs
        raise BackendError(
            f"backend '{name}' cannot build here ({error}): pip install {error.name}"
        ) from error


def _obstacle(name: str, precision: Precision) -> str:
    """Return why a backend cannot run here; empty where it can."""
    if obstacle := _wrong_precision(name, precision):
        return obstacle
    # Before the import: without a device, importing or touching TensorRT may end the process.
    if _LIBRARIES[name].gpu and (reason := missing_device()):
        return f"finds no GPU ({reason})"
    return _not_installed(name)


def _wrong_precision(name: str, precision: Precision) -> str:
    if precision not in PRECISIONS:
        return f"has no precision '{precision}'; expected one of {', '.join(PRECISIONS)}"
    if precision not in _LIBRARIES[name].precisions:
        return f"computes in {' or '.join(_LIBRARIES[name].precisions)}, not in {precision}"
    return ""


def _not_installed(name: str) -> str:
    try:
        _module(name)
    except ImportError as error:
        return f"is not installed ({error}): pip install {_LIBRARIES[name].package}"
    return ""


def _module(name: str) -> Any:
    return importlib.import_module(f"magicfuse_ros.backends.{name}")


def check_graph(
    path: Path, spec: NetworkSpec, inputs: list[TensorSpec], outputs: list[TensorSpec]
) -> None:
    """Compare a loaded graph's inputs and outputs with those that the bundle records.

    Raises:
        BackendError: naming the file and the first tensor that differs.
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
    """Return the error for a file that a library refused, with the last line of its reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return BackendError(f"network '{path.name}': {backend} cannot load it: {reason}")


def _describe(tensor: TensorSpec | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
