"""One copy of the networks for all cameras of a process that ask for the same ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends import Choice, select
from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.outputs import Output
from magicfuse_ros.sampler import Sample, Sampler
from magicfuse_ros.turns import Turns

# What makes networks the same: all that the bundle says of them, and how they are computed.
_Key: TypeAlias = tuple[str, str, str, int]


@dataclass
class _Loaded:
    backend: Backend
    sampler: Sampler
    users: list[Lease] = field(default_factory=list)


class SharedNetworks:
    """Loads networks for the first camera that asks for them, and frees them with the last.

    One image at a time is in any of them, see `turns`.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._loading = threading.Lock()  # one at a time; held for seconds
        self._lock = threading.Lock()  # of what follows
        self._loaded: dict[_Key, _Loaded] = {}

    def lease(self, name: str, bundle: Bundle, choice: Choice, threads: int) -> Lease:
        """Return the networks of a bundle, warmed up, for one camera.

        Args:
            name: of the camera.
            bundle: the verified bundle.
            choice: of the backend, for this bundle.
            threads: CPU threads of a network; 0 takes all cores.

        Raises:
            MagicFuseError: if the networks cannot be loaded.
        """
        key = (bundle.manifest.model_dump_json(), choice.used, choice.precision, threads)
        lease = Lease(self, name, key, self._turns)
        try:
            with self._loading:
                if not self._shared(lease):
                    self._load(lease, bundle, select(choice.used, threads, choice.precision))
                    Fuser(bundle, lease.backend, sampler=lease).warm_up()
        except BaseException:
            lease.free()
            raise
        return lease

    def reload(self, lease: Lease, bundle: Bundle) -> None:
        """Load the networks anew for all who use the same, unless another one has done so already.

        Where the bundle has changed on the disk, the new one is for this camera alone.

        Raises:
            MagicFuseError: if that fails; the networks stay as they were.
        """
        with self._loading:
            used = lease.loaded
            if used.sampler is not lease.failed:
                return
            manifest = bundle.manifest.model_dump_json()
            if manifest != lease.key[0]:
                other = (manifest, *lease.key[1:])
                ...
            self._load(lease, bundle, used.backend)
