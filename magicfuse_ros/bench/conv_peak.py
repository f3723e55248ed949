# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The float32 convolution peak of this machine, the yardstick for the time of a frame.

Machines differ, and the speed of a shared machine changes from minute to minute, but frame time x
peak hardly changes. The peak is the best rate that 3x3 convolutions reach in OpenVINO with as many
threads as the timed pipeline. It is the same measure for all backends.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset8 as ops

from magicfuse_ros.backends.openvino import settings

# (channels, rows, columns) of nano's levels at 1/4, 1/8 and 1/16 of 480 x 640, rounded up to fill
# AVX-512 registers; a feature map and its weights fit in the caches.
SHAPES = ((32, 120, 160), (64, 60, 80), (128, 30, 40))
LAYERS = 8  # in a row, so that converting the input to the library's layout costs little


class ConvolutionPeak:
    """Chains of convolution and ReLU, compiled once."""

    def __init__(self, threads: int = 0) -> None:
        """Compile them for a number of CPU threads; 0 uses all cores."""
        core = ov.Core()
        self._requests: list[tuple[float, Any]] = []
        for channels, rows, columns in SHAPES:
            compiled = core.compile_model(_chain(channels, rows, columns), "CPU", settings(threads))
            gflop = 2 * 9 * channels**2 * rows * columns * LAYERS / 1e9
            self._requests.append((gflop, compiled.create_infer_request()))

    def measure(self, repeats: int = 5) -> float:
        """Return the best GFLOP/s (2 FLOP per multiply-add) over all shapes and repeats."""
        best = 0.0
        for gflop, request in self._requests:
            request.infer()
            for _ in range(repeats):
                start = perf_counter()
                request.infer()
                best = max(best, gflop / (perf_counter() - start))
        return best


def _chain(channels: int, rows: int, columns: int) -> Any:
    x = image = ops.parameter([1, channels, rows, columns], np.float32)
    random = np.random.default_rng(0)
    for _ in range(LAYERS):
        weights = random.standard_normal((channels, channels, 3, 3), np.float32)
        weights *= np.sqrt(2 / (9 * channels), dtype=np.float32)  # keeps the scale of the values
        x = ops.relu(ops.convolution(x, ops.constant(weights), [1, 1], [1, 1], [1, 1], [1, 1]))
    return ov.Model([x], [image])
