"""Inference backends: what turns the ONNX files of a bundle into callables on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy.typing as npt

from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.errors import BackendError

Tensor: TypeAlias = Any  # a backend's own handle; a numpy array on the CPU backends


class Network(Protocol):
    """One loaded network."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network once on tensors that have exactly the shapes of its `NetworkSpec`.

        The outputs stay valid until the second next call of the same network, so that `z_next`
        may be the `z` of the following step. `Backend.download` makes them permanent.
        """


class Backend(Protocol):
    """An inference library together with the device that it runs on. Not thread-safe."""

    name: str
    version: str
    device: str

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Load and compile a network.

        Raises:
            BackendError: if the file cannot be read or compiled, or if its inputs and outputs are
                not those of `spec`. The message names the file.
        """

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Make an array usable as an input; it must not change while the tensor is in use."""

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a tensor as an array that no later call overwrites."""


# name: (module, class, pip package); "auto" tries them in this order
_BACKENDS = {
    "openvino": ("magicfuse_ros.backends.openvino", "OpenVinoBackend", "openvino"),
    "onnxruntime": ("magicfuse_ros.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime"),
}
BACKENDS: tuple[str, ...] = ("auto", *_BACKENDS)


def select(name: str = "auto", threads: int = 0) -> Backend:
    """Return a backend; `auto` takes the first of `BACKENDS` that is installed.

    Args:
        name: one of `BACKENDS`.
        threads: CPU threads of one network call; 0 takes all cores.

    Raises:
        BackendError: if the backend is not known or not installed, or `threads` is negative.
            A named backend is never replaced by another one.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend '{name}' is not known; expected one of {', '.join(BACKENDS)}")
    if threads < 0:
        raise BackendError(f"threads is {threads}; expected 0 (all cores) or more")
    if name != "auto":
        try:
            return _create(name, threads)
        except ImportError as error:
            raise BackendError(
                f"backend '{name}' is not installed ({error}): pip install {_BACKENDS[name][2]}; "
                f"available here: {', '.join(_importable()) or 'none'}"
            ) from error
    for candidate in _importable():
        return _create(candidate, threads)
    packages = " or ".join(package for *_, package in _BACKENDS.values())
    raise BackendError(f"no inference backend is installed: pip install {packages}")


def _create(name: str, threads: int) -> Backend:
    module, class_name, _ = _BACKENDS[name]
    return cast(Backend, getattr(importlib.import_module(module), class_name)(threads))


def _importable() -> Iterator[str]:
    for name, (module, *_) in _BACKENDS.items():
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        yield name


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
