"""Inference backends: what turns the ONNX files of a bundle into callables on this machine."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, cast

from magicfuse_ros.backends.cuda import missing_device
from magicfuse_ros.backends.interface import Backend, Builder
from magicfuse_ros.engine_cache import PRECISIONS, Precision
from magicfuse_ros.errors import BackendError


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
