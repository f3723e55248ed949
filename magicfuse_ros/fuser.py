# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""One camera frame in, its fused image and segmentation out, at the frame's own size."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends.interface import Backend
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import BundleError, FrameError, MagicFuseError
from magicfuse_ros.geometry import FITS, Fit, Geometry, Size
from magicfuse_ros.outputs import LABELS, OUTPUTS, Output, available_outputs, check_outputs
from magicfuse_ros.sampler import Images, Sample, Sampler

# The usual sets of outputs: all of fuse_node's, those for a viewer, those for navigation, and those
# of mode restore.
_OFTEN: tuple[tuple[Output, ...], ...] = (
    ("mag_image", "mask", "confidence"),
    ("mag_image",),
    ("mask", "confidence"),
    ("restored",),
)

__all__ = ["OUTPUTS", "FusedFrame", "Fuser", "Output"]


@dataclass(frozen=True)
class FusedFrame(Images):
    """The requested outputs, at the input's size H x W; the others are None.

    All arrays are C-contiguous and belong to the caller.
    `stages_ms` always has the keys prepare, encoder, ikr, ckg, mkf, segmentation, decoder, finish,
    total, in milliseconds; a stage that did not run has 0. If cameras share networks, it also has
    waiting, the time until the frame's turn came. If the backend joins networks, the time of their
    call is split between them according to the library's own profile.
    """

    steps: int
    stages_ms: dict[str, float]


class Samples(Protocol):
    """Loaded networks: a `Sampler`, or networks that cameras share."""

    def sample(
        self, image: npt.NDArray[np.uint8], outputs: frozenset[Output], steps: int, tau: float
    ) -> Sample:
        """See `Sampler.sample`."""

    def reloaded(self, bundle: Bundle) -> Samples:
        """See `Sampler.reloaded`."""


class Fuser:
    """Fuses one frame at a time. `steps` and `tau` may change between frames."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        fit: Fit = "letterbox",
        steps: int | None = None,
        tau: float | None = None,
        sampler: Samples | None = None,
    ) -> None:
        """Load the bundle's networks on a backend.

        Args:
            bundle: the verified bundle.
            backend: from `magicfuse_ros.backends.select`.
            fit: how to fit a frame of another shape to the networks' image.
            steps: K, one of the bundle's grids; None takes the bundle's default.
            tau: see `Fuser.tau`; None takes the bundle's default.
            sampler: the bundle's networks, loaded on the backend; None loads them.

        Raises:
            MagicFuseError: if an argument is out of its range, or a network cannot be loaded.
        """
        if fit not in FITS:
            raise MagicFuseError(f"fit is '{fit}'; expected one of {', '.join(FITS)}")
        manifest = bundle.manifest
        self._bundle = bundle
        self._backend = backend
        self._fit: Fit = fit
        self._size = (manifest.height, manifest.width)
        self._steps = 0
        self.steps = manifest.default_steps if steps is None else steps
        self.tau = manifest.tau if tau is None else tau
        self._sampler: Samples = Sampler(bundle, backend) if sampler is None else sampler

    @property
    def size(self) -> Size:
        """Rows and columns of the networks' image."""
        return self._size

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs that the bundle has."""
        return available_outputs(self._bundle.manifest)

    @property
    def steps(self) -> int:
        """K, the number of sampling steps.

        Raises:
            BundleError: on setting, if the bundle has no grid for that K.
        """
        return self._steps

    @steps.setter
    def steps(self, value: int) -> None:
        if value != self._steps:  # the lookup takes 0.2 ms, and the node sets K for every frame
            self._bundle.steps(value)
        self._steps = value

    @property
    def tau(self) -> float:
        """Limit, 0 to 1, of the restoring stream's weight where a thermal class is seen (Eq. 11).

        With a higher value, MagImg lights up only people of whom it is more certain.

        Raises:
            MagicFuseError: on setting, if the value is outside 0 to 1.
        """
        return self._tau

    @tau.setter
    def tau(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise MagicFuseError(f"tau is {value}; expected 0 to 1")
        self._tau = value

    def __call__(
        self, image: npt.NDArray[np.uint8], outputs: Collection[Output] | None = None
    ) -> FusedFrame:
        """Fuse one frame.

        Args:
            image: [H, W, 3] uint8 RGB of any size; not changed.
            outputs: the wanted outputs; only they are computed. None: all that the bundle has.

        Raises:
            FrameError: if `image` is not such an array.
            MagicFuseError: if an output is not known, or the bundle does not have it.
        """
        start = perf_counter()
        wanted = frozenset(self.outputs if outputs is None else outputs)
        check_outputs(wanted, self._bundle.manifest)
        _check(image)
        geometry = Geometry.fit((image.shape[0], image.shape[1]), self._size, self._fit)
        prepared = geometry.forward(image)[np.newaxis]
        sampling = perf_counter()
        steps = self._steps
        sample = self._sampler.sample(prepared, wanted, steps, self._tau)
        finishing = perf_counter()

        def back(name: Output) -> npt.NDArray[np.uint8] | None:
            array = getattr(sample, name)
            to_size = geometry.labels_back if name in LABELS else geometry.image_back
            return None if array is None else to_size(array)

        images = {name: back(name) for name in OUTPUTS}
        end = perf_counter()
        stages = {
            "prepare": (sampling - start) * 1e3,
            **sample.stages_ms,
            "finish": (end - finishing) * 1e3,
            "total": (end - start) * 1e3,
        }
        return FusedFrame(**images, steps=steps, stages_ms=stages)

    def reload(self) -> None:
        """Verify the bundle and reload all networks; `steps` and `tau` stay.

        Raises:
            MagicFuseError: if that fails; the networks stay as they were.
        """
        bundle = Bundle.load(self._bundle.root)
        for name in ("height", "width", "classes", "step_grids"):
            # Whoever made this fuser has these from the bundle of that time.
            if getattr(bundle.manifest, name) != getattr(self._bundle.manifest, name):
                raise BundleError(
                    f"bundle '{bundle.root}' was replaced by one with other {name}; clean up and "
                    "configure the node"
                )
        if lacking := set(self.outputs) - set(available_outputs(bundle.manifest)):
            raise BundleError(
                f"bundle '{bundle.root}' was replaced by one without {', '.join(sorted(lacking))}; "
                "clean up and configure the node"
            )
        self._sampler = self._sampler.reloaded(bundle)
        self._bundle = bundle

    def warm_up(self) -> None:
        """Run every network once, so that the first real frame is not slower than the others.

        A backend that records frames records them here for every K and the usual outputs, so that
        neither a deadline that changes K nor a new subscriber interrupts the stream.
        """
        image = np.zeros((*self._size, 3), np.uint8)
        self(image)
        if self._backend.records:
            steps = self._steps
            for count in sorted(self._bundle.manifest.step_grids):
                self.steps = count
                for outputs in (self.outputs, *_OFTEN):
                    self(image, outputs)
            self.steps = steps


def _check(image: object) -> None:
    if not isinstance(image, np.ndarray):
        raise FrameError(f"image is a {type(image).__name__}; expected a numpy array")
    if image.dtype != np.uint8:
        raise FrameError(f"image has dtype {image.dtype}; expected uint8")
    if image.ndim != 3 or image.shape[2] != 3:
        raise FrameError(f"image has shape {image.shape}; expected (rows, columns, 3)")
    if image.size == 0:
        raise FrameError(f"image has shape {image.shape}; expected at least one pixel")
