# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Shared code of the backends that compute on the host: a call returns when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy.typing as npt

from magicfuse_ros.backends.interface import (
    Joined,
    JoinedWork,
    N,
    Part,
    Recorder,
    Tensor,
    Work,
)
from magicfuse_ros.bundle import TensorSpec


class HostBackend:
    """See `Backend`."""

    loads_at_once = 2  # compiling a network uses little more than one core
    frames_at_once = 1
    records = False

    def join(
        self, parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
    ) -> Joined | None:
        """Return None: a library that handles one network at a time cannot join several."""
        return None

    def twin(self, network: N) -> N:
        """Return the network itself: an onnxruntime session can run in several threads."""
        return network

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """Return the array itself: networks read it in place."""
        return array

    def recorder(self) -> Recorder:
        """Return a recorder that runs the work directly; recording would save nothing here."""

        def run(inputs: Mapping[str, npt.NDArray[Any]], work: Work) -> dict[str, npt.NDArray[Any]]:
            return work({name: self.upload(array) for name, array in inputs.items()})

        return run

    def stamp(self) -> float:
        """Return the time in seconds."""
        return perf_counter()

    def elapsed_ms(self, start: float, end: float) -> float:
        """Return the milliseconds between two stamps."""
        return (end - start) * 1e3
