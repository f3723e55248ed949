# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""One frame's work as a CUDA graph: recorded once, then replayed with a single call.

The graph starts by copying the inputs to the device and ends by copying the results to the host.
Both use fixed pinned buffers, so a frame costs the host two copies, one launch and one wait, and
all other values stay on the device. Whatever changes from frame to frame (the image, tau) must be
an input, or a replay would not see the change. If CUDA cannot capture the work, the host queues it
again for every frame, which takes longer.

Written against the documented API of the CUDA runtime; not measured on a GPU.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends.cuda import Device, PinnedArray
from magicfuse_ros.backends.interface import Work
from magicfuse_ros.errors import BackendError, DeviceLostError

_log = logging.getLogger(__name__)


class GraphRecorder:
    """See `Recorder`."""

    def __init__(self, device: Device, on_recorded: Callable[[], None] = lambda: None) -> None:
        """Use a device; call `on_recorded` each time after work was recorded."""
        self._device = device
        self._on_recorded = on_recorded
        self._graph: int | None = None
        self._captures = True
        self._inputs: dict[str, PinnedArray] = {}
        self._downloads: list[PinnedArray] = []  # keeps the memory of the results
        self._results: dict[str, npt.NDArray[Any]] = {}

    def __call__(
        self, inputs: Mapping[str, npt.NDArray[Any]], work: Work
    ) -> dict[str, npt.NDArray[Any]]:
        """Record the work on the first call, then replay the record. Errors: see `Recorder`."""
        if self._graph is None and self._captures:
            self._record(inputs, work)
            self._on_recorded()
        if not self._captures:
            return self._queue(inputs, work)
        self._fill(inputs)
        self._device.call("cudaGraphLaunch", self._graph, self._device.stream)
        self._device.synchronize()
        return {name: np.array(result) for name, result in self._results.items()}

    def _record(self, inputs: Mapping[str, npt.NDArray[Any]], work: Work) -> None:
        device = self._device
        with device.recording() as downloads:
            self._inputs = {n: PinnedArray(device, a.shape, a.dtype) for n, a in inputs.items()}
            self._fill(inputs)
            # A library's first call may allocate memory; a captured call must not.
            self._once(work)
            device.synchronize()
            downloads.clear()
            try:
                with device.capturing() as captured:
                    self._results = self._once(work)
                self._graph = self._instance(captured[0])
            except DeviceLostError:
                raise
            except BackendError as error:
                self._captures = False
                _log.warning("frames run without a CUDA graph, which takes longer: %s", error)
                return
        self._downloads = downloads
        weakref.finalize(self, device.cuda.status, "cudaGraphExecDestroy", self._graph)

    def _instance(self, graph: int) -> int:
        """Return a graph in executable form; the graph itself is destroyed."""
        device = self._device
        try:
            made = device.get("cudaGraphInstantiateWithFlags", ctypes.c_void_p, graph, 0)
        finally:
            device.cuda.status("cudaGraphDestroy", graph)
        return int(made)

    def _queue(self, inputs: Mapping[str, npt.NDArray[Any]], work: Work) -> dict[str, Any]:
        """Do the work without a graph."""
        with self._device.recording() as downloads:
            self._fill(inputs)
            results = self._once(work)
            self._device.synchronize()
            copies = {name: np.array(result) for name, result in results.items()}
            downloads.clear()  # the results were views of these
        return copies

    def _once(self, work: Work) -> dict[str, npt.NDArray[Any]]:
        sent = {name: self._device.send(pinned) for name, pinned in self._inputs.items()}
        return work(sent)

    def _fill(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, pinned in self._inputs.items():
            pinned.array[...] = inputs[name]
