"""TensorRT for Jetson and data-centre GPUs; engines are built on the GPU that runs them."""

from __future__ import annotations

from magicfuse_ros.backends import tensorrt_engine
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.tensorrt_library import TENSORRT
from magicfuse_ros.bundle import Bundle

TENSORRT.require()


class TensorRtBackend(tensorrt_engine.EngineBackend):
    def __init__(self, precision: Precision) -> None:
        super().__init__(TENSORRT, precision)


def missing_engine(bundle: Bundle, precision: Precision) -> str:
    """Return which engine is missing. See `tensorrt_engine.missing_engine`."""
    return tensorrt_engine.missing_engine(TENSORRT, bundle, precision)
