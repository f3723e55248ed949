"""TensorRT, on Jetson and data-centre GPUs; engines are built on the GPU that runs them."""

from __future__ import annotations

from magicfuse_ros.backends.tensorrt_engine import EngineBackend
from magicfuse_ros.backends.tensorrt_library import TENSORRT
from magicfuse_ros.engine_cache import Precision

TENSORRT.require()


class TensorRtBackend(EngineBackend):
    def __init__(self, precision: Precision) -> None:
        super().__init__(TENSORRT, precision)
