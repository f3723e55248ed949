# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from magicfuse_ros.backends.checks import check_graph, load_error
from magicfuse_ros.backends.cpu import core_count
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.host import HostBackend
from magicfuse_ros.backends.interface import Network, Tensor
from magicfuse_ros.bundle import NetworkSpec, TensorSpec

_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeBackend(HostBackend):
    """Runs networks with onnxruntime's CPU provider; tensors are numpy arrays."""

    name = "onnxruntime"
    device = "CPU"

    def __init__(
        self, threads: int = 0, precision: Precision = "fp32", frames_at_once: int = 1
    ) -> None:
        self.precision = precision
        self.frames_at_once = frames_at_once
        if frames_at_once > 1:
            most = max(1, core_count() // frames_at_once)
            # Each frame brings its calling thread; all frames share a pool of the other threads.
            threads = frames_at_once * (min(threads or most, most) - 1) + 1
        self.version: str = ort.__version__
        self._options = ort.SessionOptions()
        # By default onnxruntime takes all cores of the machine, even those that this process may
        # not use, and pins a thread to each.
        self._options.intra_op_num_threads = threads or core_count()
        # Each network has its own threads; if they kept spinning, they would block the next one.
        self._options.add_session_config_entry("session.force_spinning_stop", "1")

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        """Create a session for a network. Errors: see `Backend.load`."""
        try:
            session = ort.InferenceSession(path, self._options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no narrower base
            raise load_error(path, self.name, error) from error
        inputs = [_spec(argument) for argument in session.get_inputs()]
        outputs = [_spec(argument) for argument in session.get_outputs()]
        check_graph(path, spec, inputs, outputs)
        return _OnnxRuntimeNetwork(session)

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return the tensor itself: a session allocates new outputs for every call."""
        array: npt.NDArray[Any] = tensor
        return array


class _OnnxRuntimeNetwork:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(self._names, self._session.run(None, inputs), strict=True))


def _spec(argument: Any) -> TensorSpec:
    return TensorSpec.model_construct(
        name=argument.name,
        dtype=_DTYPES.get(argument.type, argument.type),
        shape=tuple(argument.shape),
    )
