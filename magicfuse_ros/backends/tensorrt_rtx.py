"""TensorRT for RTX, on GeForce and workstation GPUs; engines may be built without one."""

from __future__ import annotations

from magicfuse_ros.backends.tensorrt_engine import EngineBackend
from magicfuse_ros.backends.tensorrt_library import RTX
from magicfuse_ros.engine_cache import Precision

RTX.require()


class TensorRtRtxBackend(EngineBackend):
    def __init__(self, precision: Precision) -> None:
        super().__init__(RTX, precision)
