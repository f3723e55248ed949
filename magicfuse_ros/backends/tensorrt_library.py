"""TensorRT and TensorRT for RTX share one API; this module holds everything that differs."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        portable: the library builds for GPUs of other machines, and an engine runs on every GPU of
            its compute capability. Otherwise an engine is built on the GPU that runs it, and for
            that product.
    """

    name: str
    oldest: tuple[int, int]
    portable: bool

    def require(self) -> None:
        """Look for the module without importing it.

        Raises:
            ImportError: if it is not installed.
        """
        if importlib.util.find_spec(self.name) is None:
            raise ImportError(f"No module named '{self.name}'", name=self.name)

    def load(self) -> Any:
        """Import the module.

        Raises:
            BackendError: if its release is too old, or if it needs a GPU and there is none.
        """
        if not self.portable and (reason := missing_device()):
            # TensorRT kills the process if it finds no GPU.
            raise BackendError(f"backend '{self.name}' needs a GPU: {reason}")
        module = importlib.import_module(self.name)
        release = tuple(int(part) for part in module.__version__.split(".")[:2])
        if release < self.oldest:
            raise BackendError(
                f"backend '{self.name}' is of release {module.__version__}; expected "
                f"{'.'.join(map(str, self.oldest))} or later"
            )
        return module

    def device(self, gpu: Device) -> str:
        """Return `EngineKey.device` of a GPU."""
        capability = _sm(gpu.compute_capability)
        if self.portable:
            return capability
        # On Jetson, modules of different sizes have GPUs of the same name, such as "Orin".
        module = module_name()
        return f"{capability} {gpu.name}, {module}" if module else f"{capability} {gpu.name}"

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
            return [self.device(gpu)]
        names = (re.fullmatch(r"SM(\d+)(\d)", n) for n in module.ComputeCapability.__members__)
        known = [f"{match[1]}.{match[2]}" for match in names if match]
        wanted = compute_capabilities or [_this_gpu(self).compute_capability]
        for asked in wanted:
            if asked not in known:
                raise BackendError(
                    f"compute capability is {asked}; {self.name} builds for {', '.join(known)}"
                )
        return [_sm(asked) for asked in dict.fromkeys(wanted)]

    def aim(self, module: Any, config: Any, device: str) -> None:
        """Set the target of a build: CUDA graphs, and a GPU that may be in another machine."""
        if self.portable:
            # An engine that allocates while it runs could not be captured; the build fails if a
            # network needs that.
            config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
            config.num_compute_capabilities = 1
            capability = module.ComputeCapability.__members__[device.upper().replace("_", "")]
            config.set_compute_capability(capability, 0)


def module_name() -> str:
    """Return the board's name, such as "NVIDIA Jetson Orin NX"; empty if it has none, as on PCs."""
    try:
        text = _DEVICE_TREE_MODEL.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return " ".join(text.replace("\0", " ").split())


RTX = Library("tensorrt_rtx", oldest=(1, 2), portable=True)
TENSORRT = Library("tensorrt", oldest=(10, 3), portable=False)


def _sm(compute_capability: str) -> str:
    return f"sm_{compute_capability.replace('.', '')}"


def _this_gpu(library: Library) -> Device:
    if reason := missing_device():
        remedy = "name one with --compute-capability" if library.portable else "build it there"
        raise BackendError(f"{library.name} has no GPU here to build for ({reason}); {remedy}")
    return Device()
