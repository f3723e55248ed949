"""TensorRT for RTX, for GeForce and workstation GPUs; building engines needs no GPU."""

from __future__ import annotations

from magicfuse_ros.backends import tensorrt_engine
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.tensorrt_library import RTX
from magicfuse_ros.bundle import Bundle

RTX.require()


class TensorRtRtxBackend(tensorrt_engine.EngineBackend):
    def __init__(self, precision: Precision) -> None:
        super().__init__(RTX, precision)


def missing_engine(bundle: Bundle, precision: Precision) -> str:
    """Return which engine is missing. See `tensorrt_engine.missing_engine`."""
    return tensorrt_engine.missing_engine(RTX, bundle, precision)
