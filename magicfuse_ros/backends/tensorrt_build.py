"""Builds engines with TensorRT or TensorRT for RTX; the latter needs no GPU for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from magicfuse_ros.backends.interface import BuildMonitor
from magicfuse_ros.backends.onnx_passes import (
    fold_constants,
    half_body,
    signed_activations,
    uint8_at_borders,
)
from magicfuse_ros.backends.tensorrt_library import RTX, TENSORRT, Library
from magicfuse_ros.bundle import NetworkSpec
from magicfuse_ros.engine_cache import Precision
from magicfuse_ros.errors import BackendError


class EngineBuilder:
    """See `Builder`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._trt = library.load()
        self.name = library.name
        self.version: str = self._trt.__version__

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
        """Build one network, of float32 or of a quantised graph. Errors: see `Builder.build`."""
        trt = self._trt
        log = _log(trt)
        builder = trt.Builder(log)
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
        self._library.aim(trt, config, device)
        config.progress_monitor = _progress(trt, monitor)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            reason = (
                "cancelled" if monitor.cancelled else "; ".join(log.errors) or "no reason given"
            )
            raise BackendError(
                f"network '{path.name}': {self.name} cannot build it for {device} in {precision}: "
                f"{reason}"
            )
        return bytes(engine)


class TensorRtRtxBuilder(EngineBuilder):
    """TensorRT for RTX."""

    def __init__(self) -> None:
        super().__init__(RTX)


class TensorRtBuilder(EngineBuilder):
    """TensorRT, as on Jetson."""

    def __init__(self) -> None:
        super().__init__(TENSORRT)


def _prepared(path: Path, precision: Precision) -> Any:
    """Return a network's model as TensorRT takes it."""
    try:
        model = fold_constants(onnx.load(path))
        if precision == "int8":
            model = signed_activations(model)
        model = uint8_at_borders(model, path.name)
        return half_body(model) if precision == "fp16" else model
    except BackendError:
        raise
    except Exception as error:  # protobuf's and onnx's have no narrower common base
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise BackendError(f"network '{path.name}': onnx cannot read it: {reason[0]}") from error


def _describe(error: Any) -> str:
    """Return operator, node and reason of a parser's error."""
    reason = next(iter(str(error.desc()).splitlines()), "")
    node = error.node_name() or f"number {error.node()}"
    return f"{error.node_operator() or 'model'} (node {node}): {reason}"


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors for the message of ours, instead of printing them."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()


def _progress(trt: Any, monitor: BuildMonitor) -> Any:
    class Progress(trt.IProgressMonitor):  # type: ignore[misc]
        """Counts the steps of the outermost phase; inner ones only give their names."""

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
