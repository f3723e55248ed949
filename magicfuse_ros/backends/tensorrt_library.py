# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""TensorRT and TensorRT for RTX share one API; this module holds everything that differs."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicfuse_ros.backends import cudart
from magicfuse_ros.backends.cuda import Device, missing_device
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.errors import BackendError

_DEVICE_TREE_MODEL = Path("/proc/device-tree/model")


@dataclass(frozen=True)
class Library:
    """One of the two libraries.

    Attributes:
        name: the name of both the backend and the Python module.
        oldest: first release that has the API, as (major, minor).
        update: how the user gets a release that is new enough.
        portable: the library builds for GPUs of other machines, and an engine runs on every GPU of
            its compute capability. Otherwise an engine is built on the GPU that runs it, and for
            that product.
    """

    name: str
    oldest: tuple[int, int]
    update: str
    portable: bool

    def require(self) -> None:
        """Look for the module without importing it.

        Raises:
            ImportError: if it is not installed.
        """
        if importlib.util.find_spec(self.name) is None:
            raise ImportError(f"No module named '{self.name}'", name=self.name)

    def load(self, *, to_build: bool = False) -> Any:
        """Import the module, to run engines here or to build them.

        Raises:
            BackendError: if it cannot be imported or its release is too old, or if it needs a GPU
                and there is none, or one whose driver is too old.
        """
        if not (self.portable and to_build):
            self._check_driver()
        try:
            module = importlib.import_module(self.name)
            release = tuple(int(part) for part in module.__version__.split(".")[:2])
        except Exception as error:  # a broken installation may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(
                f"the Python module '{self.name}'{_place(self.name)} cannot be used: {reason}; "
                "reinstall it"
            ) from error
        if release < self.oldest:
            raise BackendError(
                f"backend '{self.name}' is of release {module.__version__}; expected "
                f"{'.'.join(map(str, self.oldest))} or later: {self.update}"
            )
        return module

    def release(self, module: Any) -> str:
        """Return the library's release, which an engine must match.

        TensorRT compares four parts, of which the Python module of releases up to 10 has three: the
        library itself has the number of the build. Wheels of one release for CUDA 12 and for 13
        have the same number, and one refuses the engines of the other.
        """
        release = str(module.__version__)
        cuda = "".join(f" cu{major}" for major in self._cuda_releases())
        if self.portable:
            return release + cuda
        try:
            library = ctypes.CDLL(f"libnvinfer.so.{release.partition('.')[0]}")  # loaded already
            return f"{release}{cuda} build {library.getInferLibBuildVersion()}"
        except (OSError, AttributeError):
            return release + cuda

    def create(self, factory: Any, log: Any) -> Any:
        """Create the library's builder or runtime.

        Args:
            factory: the class.
            log: see `tensorrt_log.logger`.

        Raises:
            BackendError: if the library refuses, with its reason.
        """
        log.forget()
        try:
            return factory(log)
        except Exception as error:  # the error says only that a factory returned null
            raise BackendError(f"{self.name} cannot start: {log.told()}") from error

    def device(self, module: Any, gpu: Device) -> str:
        """Return `EngineKey.device` of a GPU.

        Raises:
            BackendError: if the library has no engines for it.
        """
        capability = gpu.compute_capability
        if self.portable:
            self._check(module, capability, f" of {gpu.name}")
            return _sm(capability)
        # On Jetson, modules of different sizes have GPUs of the same name, such as "Orin", and a
        # power mode may turn some of their multiprocessors off.
        board = module_name()
        product = f"{gpu.name}, {board}" if board else gpu.name
        return f"{_sm(capability)} {product}, {gpu.multiprocessors} multiprocessors"

    def refusal(self, device: str, precision: Precision) -> str:
        """Return why nothing can be built for a device in a precision; empty if it can."""
        if self.portable and device == "sm_75" and precision == "fp32":
            return (
                f"{self.name} has no matrix product in float32 for compute capability 7.5; build "
                "it in fp16"
            )
        return ""

    def devices(self, module: Any, compute_capabilities: Sequence[str]) -> list[str]:
        """See `Builder.devices`."""
        if not self.portable:
            gpu = _this_gpu(self)
            for asked in compute_capabilities:
                if asked != gpu.compute_capability:
                    raise BackendError(
                        f"compute capability is {asked}; {self.name} builds on the GPU that runs "
                        f"the engine, and {gpu.name} here has {gpu.compute_capability}"
                    )
            return [self.device(module, gpu)]
        for asked in compute_capabilities:
            self._check(module, asked)
        if not compute_capabilities:
            return [self.device(module, _this_gpu(self))]
        return [_sm(asked) for asked in dict.fromkeys(compute_capabilities)]

    def aim(self, module: Any, config: Any, device: str) -> None:
        """Set the target of a build: CUDA graphs, and a GPU that may be in another machine."""
        if self.portable:
            # An engine that allocates while it runs could not be captured; the build fails if a
            # network needs that.
            config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
            config.num_compute_capabilities = 1
            capability = module.ComputeCapability.__members__[device.upper().replace("_", "")]
            config.set_compute_capability(capability, 0)

    def _check_driver(self) -> None:
        """Raise an error if there is no GPU, or a driver that is too old for this library."""
        runtime, reason = cudart.load()
        if runtime is None:
            # TensorRT kills the process if it finds no GPU.
            raise BackendError(f"backend '{self.name}' needs a GPU: {reason}")
        releases, driver = self._cuda_releases(), runtime.driver_version()
        if releases and min(releases) > int(driver.partition(".")[0]):
            # The library could be imported, but not run.
            name, release = self.name.replace("_", "-"), min(releases)
            wheels = " ".join(f"{name}-cu{release}{part}" for part in ("", "-libs", "-bindings"))
            raise BackendError(
                f"{name} here is made for CUDA {release}, and the NVIDIA driver serves CUDA "
                f"{driver}: update the driver, or run: pip uninstall {name} {wheels}; pip install "
                f"{name}-cu12"
            )

    def _check(self, module: Any, capability: str, of: str = "") -> None:
        """Raise an error if a portable library does not build for a compute capability."""
        names = (re.fullmatch(r"SM(\d+)(\d)", n) for n in module.ComputeCapability.__members__)
        known = [f"{match[1]}.{match[2]}" for match in names if match]
        if capability not in known:
            raise BackendError(
                f"compute capability{of} is {capability}; {self.name} builds for {', '.join(known)}"
            )

    def _cuda_releases(self) -> list[int]:
        """Return the CUDA releases whose wheels of this library are installed; none from apt."""
        found = []
        for major in cudart.MAJORS:
            try:
                importlib.metadata.version(f"{self.name}_cu{major}_libs")
            except importlib.metadata.PackageNotFoundError:
                continue
            found.append(major)
        return found


def module_name() -> str:
    """Return the board's name, such as "NVIDIA Jetson Orin NX"; empty if it has none, as on PCs."""
    try:
        text = _DEVICE_TREE_MODEL.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return " ".join(text.replace("\0", " ").split())


RTX = Library(
    "tensorrt_rtx",
    oldest=(1, 2),
    update="pip install --upgrade tensorrt-rtx",
    portable=True,
)
TENSORRT = Library(
    "tensorrt",
    oldest=(10, 3),
    update="on a Jetson, JetPack 6.1 or later has it",
    portable=False,
)


def _place(module: str) -> str:
    """Return where a module is, as part of a sentence; empty if Python does not know."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return next((f" in '{place}'" for place in places if place), "")


def _sm(compute_capability: str) -> str:
    return f"sm_{compute_capability.replace('.', '')}"


def _this_gpu(library: Library) -> Device:
    if reason := missing_device():
        remedy = "name one with --compute-capability" if library.portable else "build it there"
        raise BackendError(f"{library.name} has no GPU here to build for ({reason}); {remedy}")
    return Device()
