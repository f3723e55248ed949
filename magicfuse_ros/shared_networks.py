# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""One copy of the networks for all cameras in a process that use the same ones."""

from __future__ import annotations

import ctypes
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from time import monotonic
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends import Choice, on_gpu, select
from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.outputs import Output
from magicfuse_ros.sampler import Sample, Sampler
from magicfuse_ros.turns import Seat, Turns

_PATIENCE_S = 10.0  # of a reload while another camera loads
_WORKS_S = 5.0  # networks work if their last result is not older than this

# Two networks are the same if manifest, backend, precision and threads are the same.
_Key: TypeAlias = tuple[str, str, str, int]


@dataclass
class _Loaded:
    backend: Backend
    samplers: SimpleQueue[Sampler]  # samplers that no image is using
    number: int  # of this load
    users: list[Lease] = field(default_factory=list)


class SharedNetworks:
    """Loads networks for the first camera that asks for them, and frees them with the last.

    Cameras take turns (see `turns`): those on a GPU among themselves, and those on the CPU among
    themselves. On the CPU, `at_once` images are processed at the same time, each on its part of the
    cores: a network with half of the cores takes less than twice as long.
    """

    def __init__(self, at_once: int = 1) -> None:
        """Load nothing yet; `at_once` is at least 1."""
        self._at_once = at_once
        self._on_cpu, self._on_gpu = Turns(at_once), Turns()
        self._loading = threading.Lock()  # held for seconds, by one camera at a time
        self._lock = threading.Lock()  # guards what is loaded, and for whom
        self._loaded: dict[_Key, _Loaded] = {}
        self._numbers = count()

    def lease(self, name: str, bundle: Bundle, choice: Choice, threads: int) -> Lease:
        """Return the networks of a bundle, warmed up, for one camera until it frees them.

        Args:
            name: name of the camera.
            bundle: the verified bundle.
            choice: the backend chosen for this bundle.
            threads: CPU threads for each image; 0: its part of the cores, also the maximum.

        Raises:
            MagicFuseError: if the networks cannot be loaded.
        """
        key = (bundle.manifest.model_dump_json(), choice.used, choice.precision, threads)
        turns = self._on_gpu if on_gpu(choice.used) else self._on_cpu
        lease = Lease(self, name, key, turns.seat())
        with self._loading:
            try:
                if not self._join(lease, key):
                    backend = select(
                        choice.used, threads, choice.precision, frames_at_once=self._at_once
                    )
                    self._load(lease, key, bundle, backend)
                    for _ in range(backend.frames_at_once):  # each time with the next sampler
                        Fuser(bundle, backend, sampler=lease).warm_up()
                    _give_back_memory()
                    lease.seat.reset()
            except BaseException:
                lease.free()  # before another camera can join what does not work
                raise
        return lease

    def reload(self, lease: Lease, bundle: Bundle) -> None:
        """Reload the networks for all cameras, unless another camera has just done so.

        If the bundle on disk has changed, only this camera gets the new one. A camera that fails
        for a reason of its own must not keep taking time from the others. While the networks work
        for another camera, this camera reloads them only once until they work for it again.

        Raises:
            MagicFuseError: if that fails, or would be in vain; the networks stay as they were.
        """
        # An image that fails while another camera compiles its networks must not count as hanging.
        if not self._loading.acquire(timeout=_PATIENCE_S):
            raise MagicFuseError("another camera is loading its networks")
        try:
            self._reload(lease, bundle)
        finally:
            self._loading.release()
        lease.seat.reset()

    def free(self, lease: Lease) -> None:
        """Free the networks if nobody else uses them."""
        with self._lock:
            self._leave(lease)

    def users(self, lease: Lease) -> list[str]:
        """Return the names of the other cameras that use the same networks."""
        with self._lock:
            found = self._loaded.get(lease.key)
            return [] if found is None else [one.name for one in found.users if one is not lease]

    def _reload(self, lease: Lease, bundle: Bundle) -> None:
        loaded = lease.loaded
        key = (bundle.manifest.model_dump_json(), *lease.key[1:])
        if key != lease.key:
            if not self._join(lease, key):
                self._load(lease, key, bundle, loaded.backend)
        elif loaded.number == lease.used:
            with self._lock:
                works = [one.name for one in loaded.users if one is not lease and one.works]
            if works and (lease.reloads or not lease.failed):
                raise MagicFuseError(f"they work for {', '.join(works)}")
            loaded.samplers = self._samplers(lease, bundle, loaded.backend)
            loaded.number = next(self._numbers)
            lease.reloads += 1

    def _load(self, lease: Lease, key: _Key, bundle: Bundle, backend: Backend) -> None:
        made = _Loaded(backend, self._samplers(lease, bundle, backend), next(self._numbers))
        with self._lock:
            self._loaded[key] = made
        self._join(lease, key)

    def _join(self, lease: Lease, key: _Key) -> bool:
        with self._lock:
            found = self._loaded.get(key)
            if found is None:
                return False
            self._leave(lease)
            lease.key, lease.loaded = key, found
            found.users.append(lease)
            return True

    def _leave(self, lease: Lease) -> None:
        found = self._loaded.get(lease.key)
        if found is None or lease not in found.users:
            return
        found.users.remove(lease)
        if not found.users:
            del self._loaded[lease.key]

    def _samplers(self, lease: Lease, bundle: Bundle, backend: Backend) -> SimpleQueue[Sampler]:
        # On a CPU, other cameras continue meanwhile.
        with lease.seat.turn() if backend.records else nullcontext():
            first = Sampler(bundle, backend)
        made: SimpleQueue[Sampler] = SimpleQueue()
        for sampler in (first, *(first.twin() for _ in range(1, backend.frames_at_once))):
            made.put(sampler)
        return made


class Lease:
    """The networks for one camera; a `Samples` that waits for its turn.

    Attributes:
        name: name of the camera.
        seat: the camera's place among those that take turns.
        key: identifies the networks.
        loaded: the networks, while they are leased.
        used: number of the load that the latest image used.
        failed: whether the networks failed on that image.
        reloads: how often the networks were reloaded since they last worked for this camera.
    """

    loaded: _Loaded

    def __init__(self, shared: SharedNetworks, name: str, key: _Key, seat: Seat) -> None:
        self.name = name
        self.key = key
        self.seat = seat
        self.used: int | None = None
        self.failed = False
        self.reloads = 0
        self._worked: float | None = None
        self._shared = shared

    @property
    def backend(self) -> Backend:
        """The backend of the networks."""
        return self.loaded.backend

    @property
    def works(self) -> bool:
        """Whether there was a result recently, and no failure since."""
        recent = self._worked is not None and monotonic() - self._worked < _WORKS_S
        return recent and not self.failed

    def sample(
        self, image: npt.NDArray[np.uint8], outputs: frozenset[Output], steps: int, tau: float
    ) -> Sample:
        """Sample one image in this camera's turn; see `Sampler.sample`.

        `stages_ms` also has `waiting`: the milliseconds until the turn came.
        """
        with self.seat.turn() as waited:
            samplers, self.used = self.loaded.samplers, self.loaded.number
            sampler = samplers.get()  # one is free: there are as many as turns
            try:
                sample = sampler.sample(image, outputs, steps, tau)
            except BaseException:
                self.failed = True
                raise
            finally:
                samplers.put(sampler)
        self.failed, self.reloads, self._worked = False, 0, monotonic()
        sample.stages_ms["waiting"] = 1e3 * waited
        return sample

    def reloaded(self, bundle: Bundle) -> Lease:
        """Reload the networks and return this lease. Errors: see `SharedNetworks.reload`."""
        self._shared.reload(self, bundle)
        return self

    def others(self) -> list[str]:
        """Return the names of the other cameras that use the same networks."""
        return self._shared.users(self)

    def free(self) -> None:
        """Stop using the networks; a second call does nothing."""
        self._shared.free(self)
        self.seat.close()


def _give_back_memory() -> None:
    """Return what compiling the networks has freed to the system: glibc keeps over 10 MB of it."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
