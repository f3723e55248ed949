# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Builds engines with TensorRT, or with TensorRT for RTX, which needs no GPU for a build."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from magicfuse_ros.backends.engine_cache import (
    EngineCache,
    Precision,
    read_checked,
    write_checked,
)
from magicfuse_ros.backends.interface import BuildMonitor
from magicfuse_ros.backends.onnx_passes import (
    fold_constants,
    fold_norms,
    half_body,
    uint8_at_borders,
)
from magicfuse_ros.backends.tensorrt_library import Library
from magicfuse_ros.backends.tensorrt_log import logger
from magicfuse_ros.bundle import NetworkSpec
from magicfuse_ros.errors import BackendError

_log = logging.getLogger(__name__)

# With more, TensorRT tries layouts that do not fit an Orin Nano, whose GPU shares 4 or 8 GB with
# the CPU.
WORKSPACE_BYTES = 1 << 30


class EngineBuilder:
    """See `Builder`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._trt = library.load(to_build=True)
        self.name = library.name
        self.version = library.release(self._trt)

    def devices(self, compute_capabilities: Sequence[str]) -> list[str]:
        """Return the devices to build for. Errors: see `Builder.devices`."""
        return self._library.devices(self._trt, compute_capabilities)

    def build(
        self,
        path: Path,
        spec: NetworkSpec,
        device: str,
        precision: Precision,
        monitor: BuildMonitor,
    ) -> bytes:
        """Build one network from a float32 graph. Errors: see `Builder.build`."""
        if reason := self._library.refusal(device, precision):
            raise BackendError(f"network '{path.name}': {reason}")
        trt = self._trt
        log = logger(trt)
        builder = self._library.create(trt.Builder, log)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(strongly_typed)
        parser = trt.OnnxParser(network, log)
        if not parser.parse(_prepared(path, precision).SerializeToString()):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            raise BackendError(
                f"network '{path.name}': {self.name} cannot parse it: "
                f"{'; '.join(map(_describe, errors))}"
            )
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # TF32 keeps 10 of float32's 23 bits
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
        self._library.aim(trt, config, device)
        config.progress_monitor = _progress(trt, monitor)
        timings = None if self._library.portable else self._timings(device)
        if timings:
            _use_timings(config, timings)
        log.forget()  # complaints of the parser or about the timings, which were dealt with
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            reason = "cancelled" if monitor.cancelled else log.told()
            raise BackendError(
                f"network '{path.name}': {self.name} cannot build it for {device} in {precision}: "
                f"{reason}"
            )
        if timings:
            _keep_timings(config, timings)
        return bytes(engine)

    def _timings(self, device: str) -> Path:
        """Return the file that keeps TensorRT's layer timings on this device for later builds."""
        device = "".join(c if c.isalnum() else "_" for c in device)
        return EngineCache().root / self.name / f"timings-{self.version}-{device}.cache"


def _prepared(path: Path, precision: Precision) -> Any:
    """Return a network's model in the form that TensorRT accepts."""
    try:
        model = uint8_at_borders(fold_norms(fold_constants(onnx.load(path))), path.name)
        return half_body(model) if precision == "fp16" else model
    except BackendError:
        raise
    except Exception as error:  # errors of protobuf and onnx have no narrower common base
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise BackendError(f"network '{path.name}': onnx cannot read it: {reason[0]}") from error


def _describe(error: Any) -> str:
    """Return the operator, node and reason of a parser error."""
    reason = next(iter(str(error.desc()).splitlines()), "")
    node = error.node_name() or f"number {error.node()}"
    return f"{error.node_operator() or 'model'} (node {node}): {reason}"


def _use_timings(config: Any, path: Path) -> None:
    """Start with the timings in a file, if it exists, is whole and TensorRT accepts it."""
    cache = None
    try:
        cache = config.create_timing_cache(read_checked(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("'%s' is not used: %s; every layer is timed again", path, error)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timings(config: Any, path: Path) -> None:
    """Write the timings of a build; if that fails, warn: the next build measures again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checked(path, bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        _log.warning("cannot write '%s': %s", path, error)


def _progress(trt: Any, monitor: BuildMonitor) -> Any:
    class Progress(trt.IProgressMonitor):  # type: ignore[misc]
        """Counts the steps of the outermost phase; inner phases only supply their names."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phase, self.done, self.total = "", 0, 1

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.phase, self.done, self.total = name, 0, steps
            monitor.step(name, self.done, self.total)

        def phase_finish(self, name: str) -> None:
            if name == self.phase:
                self.done = self.total
                monitor.step(name, self.done, self.total)

        def step_complete(self, name: str, step: int) -> bool:
            if name == self.phase:
                self.done = step + 1
                monitor.step(name, self.done, self.total)
            return not monitor.cancelled

    return Progress()
