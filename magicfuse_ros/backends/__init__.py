# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Inference backends: they turn the ONNX files of a bundle into callables on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from magicfuse_ros.backends import tensorrt_engine
from magicfuse_ros.backends.cpu import computes_int8_faster
from magicfuse_ros.backends.cuda import missing_device
from magicfuse_ros.backends.engine_cache import (
    ASKED_PRECISIONS,
    AskedPrecision,
    EngineCache,
    Precision,
)
from magicfuse_ros.backends.interface import Backend, Builder
from magicfuse_ros.backends.tensorrt_library import RTX, TENSORRT
from magicfuse_ros.backends.tensorrt_library import Library as GpuLibrary
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import BackendError, DeviceLostError


@dataclass(frozen=True)
class _Library:
    install: str  # what the user must do if it is missing
    backend: str = ""  # on a CPU: class name, in the module named after the backend
    cached: bool = False  # on a CPU: it keeps compiled networks for the next start
    gpu: GpuLibrary | None = None  # on a GPU: what runs and builds its engines
    precisions: tuple[Precision, ...] = ("fp32", "int8")  # the first is the default
    int8_pays: bool = False  # by default it uses int8 if the bundle and the CPU allow it


# "auto" tries them in this order
_LIBRARIES = {
    "tensorrt_rtx": _Library(
        install="on a PC with an RTX GPU, pip install tensorrt-rtx",
        gpu=RTX,
        precisions=("fp16", "fp32"),
    ),
    "tensorrt": _Library(
        install="on a Jetson, sudo apt install python3-libnvinfer, and make a venv with "
        "--system-site-packages; elsewhere, pip install tensorrt",
        gpu=TENSORRT,
        precisions=("fp16", "fp32"),
    ),
    "openvino": _Library(
        install="pip install openvino",
        backend="OpenVinoBackend",
        cached=True,
        int8_pays=True,
    ),
    "onnxruntime": _Library(install="pip install onnxruntime", backend="OnnxRuntimeBackend"),
}
_NO_GPU = "finds no GPU"
BACKENDS: tuple[str, ...] = ("auto", *_LIBRARIES)
BUILDERS: tuple[str, ...] = tuple(n for n, entry in _LIBRARIES.items() if entry.cached or entry.gpu)


@dataclass(frozen=True)
class Choice:
    """The chosen backend and the reason.

    Attributes:
        asked: name that was asked for.
        used: name of the backend.
        why: the reason.
        precision: arithmetic of the networks.
        warning: what the user probably expected instead; empty if there is nothing to say.
    """

    asked: str
    used: str
    why: str
    precision: Precision = "fp32"
    warning: str = ""

    def __str__(self) -> str:
        return f"{self.used}: {self.why}"


def choose(
    name: str = "auto",
    precision: AskedPrecision = "auto",
    bundle: Bundle | None = None,
    failed: Mapping[str, str] | None = None,
) -> Choice:
    """Return the backend to use; `auto` takes the first of `BACKENDS` that can run here.

    Args:
        name: one of `BACKENDS`.
        precision: arithmetic of the networks; auto: see `resolve`.
        bundle: the bundle to run: `auto` skips a GPU if the bundle's engines have not been built
            for it. None checks only the machine.
        failed: what `auto` also skips, with the reason: backends that could not load the networks.

    Raises:
        BackendError: if the backend is unknown or cannot run here. A named backend is never
            replaced by another one.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend '{name}' is not known; expected one of {', '.join(BACKENDS)}")
    if precision not in ASKED_PRECISIONS:
        raise BackendError(f"backend '{name}' {_wrong_precision(name, precision)}")
    if name != "auto":
        if obstacle := _obstacle(name, precision):
            usable = [n for n in _LIBRARIES if not _obstacle(n, precision)]
            raise BackendError(
                f"backend '{name}' {obstacle}; available here: {', '.join(usable) or 'none'}"
            )
        return _chosen(name, name, "asked for", precision, bundle)
    passed_over: list[str] = []
    before = warning = ""
    for candidate in _LIBRARIES:
        try:
            obstacle = (failed or {}).get(candidate) or _obstacle(candidate, precision, bundle)
        except DeviceLostError as error:  # it came too late for this process
            obstacle = f"{_NO_GPU} ({error})"
        if not obstacle:
            why = "; ".join(["auto", *passed_over])
            chosen = _chosen(name, candidate, why, precision, bundle)
            return chosen if on_gpu(candidate) else replace(chosen, warning=warning)
        if obstacle.startswith(_NO_GPU) and bundle and _has_engines(candidate, bundle):
            warning = (
                f"{candidate} has engines of this bundle, but {obstacle}; so the CPU computes "
                "until the node is started again with a GPU"
            )
        same = obstacle == before  # such as a missing GPU, which both report
        passed_over.append(f"{candidate} {'likewise' if same else obstacle}")
        before = obstacle
    raise BackendError(f"no inference backend can run here: {'; '.join(passed_over)}")


def obstacle(name: str, bundle: Bundle) -> str:
    """Return why a backend cannot run a bundle here in its own precision; empty if it can."""
    return _obstacle(name, "auto", bundle)


def on_gpu(name: str) -> bool:
    """Return whether a known backend computes on a GPU."""
    return _LIBRARIES[name].gpu is not None


def resolve(name: str, precision: AskedPrecision, bundle: Bundle | None = None) -> Precision:
    """Return the precision that a known backend uses: the one asked for, or its own choice.

    Its own choice is fp16 on a GPU; int8 in OpenVINO if the bundle has it and this CPU gains from
    it; else fp32.
    """
    if precision != "auto":
        return precision
    library = _LIBRARIES[name]
    int8 = library.int8_pays and bundle is not None and bundle.has_int8 and computes_int8_faster()
    return "int8" if int8 else library.precisions[0]


def _chosen(
    asked: str, used: str, why: str, precision: AskedPrecision, bundle: Bundle | None
) -> Choice:
    kind = resolve(used, precision, bundle)
    if precision == "auto" and kind == "int8":
        why += "; int8, because the bundle has it and this CPU runs it faster"
    return Choice(asked, used, why, kind)


def select(
    name: str = "auto",
    threads: int = 0,
    precision: AskedPrecision = "auto",
    bundle: Bundle | None = None,
    frames_at_once: int = 1,
) -> Backend:
    """Create the backend that `choose` names.

    Args:
        name: one of `BACKENDS`.
        threads: CPU threads per frame; 0 uses all cores. GPU backends ignore it.
        precision: arithmetic of the networks; fp16 on a GPU only, int8 on a CPU only and only if
            the bundle has it.
        bundle: see `choose`.
        frames_at_once: frames that share the cores at the same time; a GPU computes one.

    Raises:
        BackendError: as for `choose`, or if `threads` is negative.
    """
    choice = choose(name, precision, bundle)
    if threads < 0:
        raise BackendError(f"threads is {threads}; expected 0 (all cores) or more")
    library = _LIBRARIES[choice.used]
    if library.gpu:
        return tensorrt_engine.EngineBackend(library.gpu, choice.precision)
    create = getattr(_module(choice.used), library.backend)
    return cast(Backend, create(threads, choice.precision, frames_at_once))


def check_builds(name: str) -> None:
    """Check that `magicfuse build` has something to do for a backend, see `BUILDERS`.

    Raises:
        BackendError: if the backend is unknown or has nothing to build.
    """
    known = ", ".join(BUILDERS)
    if name not in _LIBRARIES:
        raise BackendError(f"backend '{name}' is not known; expected one of {known}")
    if name not in BUILDERS:
        raise BackendError(
            f"backend '{name}' has nothing to build: it loads the bundle's ONNX files themselves, "
            f"at once; expected one of {known}"
        )


def builder(name: str, precision: AskedPrecision = "auto") -> Builder:
    """Return a GPU backend's engine builder. The GPU may be in another machine, see `Builder`.

    Args:
        name: of a backend on a GPU.
        precision: see `choose`; pass the same one to `Builder.build`, see `resolve`.

    Raises:
        BackendError: if the backend is unknown or not installed, has no engines, or does not
            compute in `precision`.
    """
    check_builds(name)
    if obstacle := _wrong_precision(name, precision) or _not_installed(name):
        raise BackendError(f"backend '{name}' {obstacle}")
    if not (gpu := _LIBRARIES[name].gpu):
        raise BackendError(f"backend '{name}' has no engines: it computes on the CPU")
    try:
        return cast(Builder, _module("tensorrt_build").EngineBuilder(gpu))
    except ImportError as error:
        raise BackendError(
            f"backend '{name}' cannot build here ({error}): pip install onnx"
        ) from error


def _obstacle(name: str, precision: AskedPrecision, bundle: Bundle | None = None) -> str:
    """Return why a backend cannot run here; empty if it can."""
    if obstacle := _wrong_precision(name, precision):
        return obstacle
    # Check this before the import: without a device, importing TensorRT may kill the process.
    if _LIBRARIES[name].gpu and (reason := missing_device()):
        return f"{_NO_GPU} ({reason})"
    if obstacle := _not_installed(name):
        return obstacle
    return _not_built(name, resolve(name, precision), bundle) if bundle else ""


def _wrong_precision(name: str, precision: AskedPrecision) -> str:
    if precision not in ASKED_PRECISIONS:
        return f"has no precision '{precision}'; expected one of {', '.join(ASKED_PRECISIONS)}"
    library = _LIBRARIES[name]
    if precision == "auto" or precision in library.precisions:
        return ""
    known = " or ".join(library.precisions)
    if library.gpu:
        return (
            f"computes in {known}, not in {precision}: a GPU's fp16 is as fast for these networks, "
            "and TensorRT's int8 would lose 3 dB more than a CPU's"
        )
    return f"computes in {known}, not in {precision}"


def _has_engines(name: str, bundle: Bundle) -> bool:
    sha256 = bundle.manifest.networks["encoder"].sha256
    try:
        return EngineCache().has_any(name, sha256)
    except (BackendError, OSError):  # there is no cache, or this user may not look into it
        return False


def _not_built(name: str, precision: Precision, bundle: Bundle) -> str:
    """Return which engine a GPU backend lacks and the command that builds it; empty if none."""
    if not (gpu := _LIBRARIES[name].gpu):
        return ""
    try:
        reason = tensorrt_engine.missing_engine(gpu, bundle, precision)
    except BackendError as error:
        return f"cannot be used ({error})"
    if not reason:
        return ""
    command = tensorrt_engine.build_command(bundle.root, name, precision)
    return f"has no engines ({reason}; to build them, run: {command})"


def _not_installed(name: str) -> str:
    library = _LIBRARIES[name]
    try:
        if library.gpu:
            library.gpu.require()
        else:
            _module(name)
    except ImportError as error:
        return f"is not installed ({error}): {library.install}"
    return ""


def _module(name: str) -> Any:
    return importlib.import_module(f"magicfuse_ros.backends.{name}")
