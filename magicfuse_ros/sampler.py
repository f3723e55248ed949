# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The reduced-step sampler: one image in, the wanted outputs out, on any backend.

    paper             here             shape (float32 unless noted)
    I_vis             image            [1, H, W, 3] uint8
    E(I_vis)          condition        [1, C, h, w], with further encoder outputs beside it
    z_T               z_T              [1, L, h, w], one Gaussian start for the three streams
    z_t               z_ikr, z_ckg, z_mkf   every stream keeps its own
    z~_{t->0}         x0               [1, L, h, w]
    z^s               z_seg            [1, classes, h, w], at the start zeros or Gaussian
    tau               tau              [1]
    alpha-bar_t       abar_t, abar_next  [1], the two ends of a step
    Psi, Phi, F, S    ikr, ckg, mkf, segmentation

    1. condition = encoder(image), with the bundle's fixed noise if the encoder takes any
    2. For every (t, abar_t, abar_next) of the K-step grid:
       2a. restoring stream: eps, x0, z_ikr = ikr(condition, z_ikr, t, ...)
       2b. thermal stream:   eps, x0, z_ckg = ckg(condition, z_ckg, t, ...)
       2c. fused stream:     x0, z_mkf, z_seg = mkf(both x0, both eps, z_mkf, z_seg, tau, ...)
    3. mask, confidence = segmentation(z_seg)
    4. images = decoder(x0, image) of the streams whose image is wanted
    5. thermal_estimate, thermal_uncertainty are read from the image of the thermal stream

A network runs only if a wanted output needs it. If MagImg and labels are wanted and K = 1, a
backend may compute them with one joined network; every further step would copy three more networks
into it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from magicfuse_ros.backends.interface import Backend, Joined, Network, Part, Recorder, Stamp, Tensor
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName, TensorSpec
from magicfuse_ros.bundle.wiring import latent_shape, noise_shape, wire
from magicfuse_ros.outputs import (
    DECODED,
    LABELS,
    OUTPUTS,
    Output,
    computed_outputs,
    network_calls,
)
from magicfuse_ros.thermal import ThermalReader

_JOINED: frozenset[Output] = frozenset({"mag_image", *LABELS})

# Runs a network on those of the given tensors that it takes.
_Call: TypeAlias = Callable[[NetworkName, Mapping[str, Tensor]], Mapping[str, Tensor]]
_Grid: TypeAlias = list[dict[str, Tensor]]


@dataclass(frozen=True)
class Images:
    """The outputs of one image, all of one size H x W; None if not wanted.

    `thermal_estimate` is an estimate from the visible image, never a measurement;
    `thermal_uncertainty` is its standard deviation.
    """

    mag_image: npt.NDArray[np.uint8] | None  # [H, W, 3] RGB
    restored: npt.NDArray[np.uint8] | None  # [H, W, 3] RGB
    thermal_estimate: npt.NDArray[np.uint8] | None  # [H, W], bright is warm
    thermal_uncertainty: npt.NDArray[np.uint8] | None  # [H, W], in the estimate's gray levels
    mask: npt.NDArray[np.uint8] | None  # [H, W], class ids of the bundle
    confidence: npt.NDArray[np.uint8] | None  # [H, W], 0 to 255, of the mask's class


@dataclass(frozen=True)
class Sample(Images):
    """The outputs at the network's size."""

    stages_ms: dict[str, float]  # by network; 0 for one that did not run


@dataclass
class _Frame:
    """One kind of frame: a set of computed outputs and a number of steps."""

    recorder: Recorder
    grid: _Grid
    joined: Joined | None
    # None: the joined network, whose time is split between its parts.
    spans: list[tuple[NetworkName | None, Stamp, Stamp]] = field(default_factory=list)


class Sampler:
    """Holds the loaded networks of a bundle. Not thread-safe: one image at a time, see `twin`."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Load all networks, so that a later change of the outputs does not stall a frame.

        Raises:
            BundleError: if the graphs do not fit together, or the backend computes in int8 and the
                bundle has no int8 graphs.
            BackendError: if a network cannot be loaded.
        """
        if backend.precision == "int8":
            bundle = bundle.quantized()
        manifest = bundle.manifest
        self._bundle = bundle
        self._backend = backend
        self._inputs = wire(manifest)
        self._thermal = ThermalReader(manifest.thermal_uncertainty)
        latent = latent_shape(manifest)
        # In the order that the bundle format prescribes.
        random = np.random.default_rng(manifest.seed)
        self._z_T = self._constant(random.standard_normal(latent, np.float32))
        scores = (1, len(manifest.classes), *latent[2:])
        self._z_seg = self._constant(
            random.standard_normal(scores, np.float32)
            if manifest.z_seg_start == "normal"
            else np.zeros(scores, np.float32)
        )
        self._fixed: dict[str, Tensor] = {}
        if noise := noise_shape(manifest):
            self._fixed["noise"] = self._constant(random.standard_normal(noise, np.float32))
        self._grids = {k: self._grid(k) for k in manifest.step_grids}
        paths, specs = map(bundle.path, NETWORKS), map(manifest.networks.__getitem__, NETWORKS)
        with ThreadPoolExecutor(backend.loads_at_once) as pool:
            # First, because it takes as long as all the others.
            joined = pool.submit(self._join, self._grids[1]) if 1 in self._grids else None
            networks = pool.map(backend.load, paths, specs)
            self._networks = dict(zip(NETWORKS, networks, strict=True))
            self._joined = joined.result() if joined else None
        self._frames: dict[tuple[frozenset[Output], int], _Frame] = {}

    def sample(
        self, image: npt.NDArray[np.uint8], outputs: frozenset[Output], steps: int, tau: float
    ) -> Sample:
        """Sample one image.

        Args:
            image: [1, H, W, 3] uint8 RGB at the network's size, C-contiguous.
            outputs: the wanted outputs of the bundle; only they are computed.
            steps: K, one of the bundle's grids.
            tau: limit of the restoring stream's weight in thermal regions, 0 to 1.

        Returns:
            Arrays that no later call overwrites.

        Raises:
            BundleError: if the bundle has no grid for `steps`.
        """
        made = computed_outputs(outputs)
        key = (made, steps)
        if key not in self._frames:
            self._frames[key] = self._frame(made, steps)
        frame = self._frames[key]
        inputs: dict[str, npt.NDArray[Any]] = {"image": image, "tau": np.array([tau], np.float32)}
        arrays = frame.recorder(inputs, lambda tensors: self._run(tensors, made, frame))
        ms = dict.fromkeys((str(n) for n in NETWORKS), 0.0)
        shares = frame.joined.shares() if frame.joined else {}
        for name, start, end in frame.spans:
            elapsed = self._backend.elapsed_ms(start, end)
            for part, share in ({name: 1.0} if name else shares).items():
                ms[part] += share * elapsed
        first = {name: array[0] for name, array in arrays.items()}
        if (thermal := first.pop("thermal_estimate", None)) is not None:
            first |= self._thermal(thermal, outputs)
        return Sample(**{name: first.get(name) for name in OUTPUTS}, stages_ms=ms)

    def twin(self) -> Sampler:
        """Return a sampler on the same compiled networks, for another image at the same time."""
        other = copy(self)
        other._networks = {n: self._backend.twin(net) for n, net in self._networks.items()}
        other._joined = self._joined and self._backend.twin(self._joined)
        other._frames = {}
        return other

    def reloaded(self, bundle: Bundle) -> Sampler:
        """Return a bundle's networks, reloaded on the same backend. Errors: as for `Sampler`."""
        return Sampler(bundle, self._backend)

    def _run(
        self, tensors: Mapping[str, Tensor], outputs: frozenset[Output], frame: _Frame
    ) -> dict[str, npt.NDArray[np.uint8]]:
        """Do the work of one frame, see `Work`; `tensors`: image, tau; `outputs`: computed ones.

        It may be recorded, so it must not depend on any value.
        """
        frame.spans.clear()
        stamp = self._backend.stamp
        results: dict[str, npt.NDArray[np.uint8]] = {}

        def run(name: NetworkName, known: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            start = stamp()
            tensors = self._networks[name](self._taken(name, known))
            frame.spans.append((name, start, stamp()))
            return tensors

        def fetch(name: Output, tensor: Tensor) -> None:
            start = stamp()
            results[name] = self._backend.download(tensor)
            frame.spans.append(("segmentation" if name in LABELS else "decoder", start, stamp()))

        if frame.joined:
            start = stamp()
            known: Mapping[str, Tensor] = frame.joined(tensors)
            frame.spans.append((None, start, stamp()))
            for name in outputs & _JOINED:
                fetch(name, known[name])
        else:
            known = self._latents(run, tensors, frame.grid, network_calls(outputs, len(frame.grid)))
        left = outputs - _JOINED if frame.joined else outputs
        for name, tensor in self._finish(run, known, tensors, left):
            fetch(name, tensor)
        return results

    def _latents(
        self,
        run: _Call,
        tensors: Mapping[str, Tensor],
        grid: _Grid,
        calls: Mapping[NetworkName, int],
    ) -> dict[str, Tensor]:
        """Do steps 1 and 2; return the encoder's outputs, z_seg, and each stream's x0_<output>."""
        if not calls["encoder"]:
            return {}
        encoded = run("encoder", {**self._fixed, "image": tensors["image"]})
        found = {**encoded, "z_seg": self._z_seg}
        z_ikr = z_ckg = z_mkf = self._z_T
        for step in grid:
            known = {**encoded, **step}
            if calls["ikr"]:
                ikr = run("ikr", {**known, "z": z_ikr})
                z_ikr, found["x0_restored"] = ikr["z_next"], ikr["x0"]
            if calls["ckg"]:
                ckg = run("ckg", {**known, "z": z_ckg})
                z_ckg, found["x0_thermal_estimate"] = ckg["z_next"], ckg["x0"]
            if calls["mkf"]:
                streams = {
                    "x0_ikr": ikr["x0"],
                    "x0_ckg": ckg["x0"],
                    "eps_ikr": ikr["eps"],
                    "eps_ckg": ckg["eps"],
                    "tau": tensors["tau"],
                }
                mkf = run("mkf", {**known, **streams, "z": z_mkf, "z_seg": found["z_seg"]})
                z_mkf, found["x0_mag_image"] = mkf["z_next"], mkf["x0"]
                found["z_seg"] = mkf["z_seg_next"]
        return found

    def _finish(
        self,
        run: _Call,
        known: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        outputs: Collection[Output],
    ) -> Iterator[tuple[Output, Tensor]]:
        """Do steps 3 and 4 on latents; yield each wanted output while it is valid."""
        if wanted := [name for name in LABELS if name in outputs]:
            labels = run("segmentation", known)
            yield from ((name, labels[name]) for name in wanted)
        for name in DECODED:
            if name in outputs:
                x0 = {"x0": known[f"x0_{name}"], "visible": tensors["image"]}
                yield name, run("decoder", {**known, **x0})["image"]

    def _join(self, grid: _Grid) -> Joined | None:
        """Return steps 1 to 4 for MagImg and labels as one network, if the backend has it."""
        manifest = self._bundle.manifest
        image = TensorSpec(
            name="image", dtype="uint8", shape=(1, manifest.height, manifest.width, 3)
        )
        tau = TensorSpec(name="tau", dtype="float32", shape=(1,))

        def work(
            networks: Mapping[str, Network], tensors: Mapping[str, Tensor]
        ) -> dict[str, Tensor]:
            def run(name: NetworkName, known: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
                return networks[name](self._taken(name, known))

            latents = self._latents(run, tensors, grid, network_calls(_JOINED, len(grid)))
            # For images that are decoded separately; every output costs a copy.
            decoder = {"x0_restored", "x0_thermal_estimate", *self._inputs["decoder"]}
            kept = {name: tensor for name, tensor in latents.items() if name in decoder}
            return {**kept, **dict(self._finish(run, latents, tensors, _JOINED))}

        parts = [Part(n, self._bundle.path(n), manifest.networks[n]) for n in NETWORKS]
        return self._backend.join(parts, [image, tau], work)

    def _taken(self, name: NetworkName, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: known[key] for key in self._inputs[name]}

    def _frame(self, outputs: frozenset[Output], steps: int) -> _Frame:
        self._bundle.steps(steps)  # raises if there is no such grid
        at_once = steps == 1 and "mag_image" in outputs and outputs.intersection(LABELS)
        joined = self._joined if at_once else None
        return _Frame(self._backend.recorder(), self._grids[steps], joined)

    def _grid(self, steps: int) -> _Grid:
        return [
            {
                "t": self._constant(np.array([step.t], np.float32)),
                "abar_t": self._constant(np.array([step.abar_t], np.float32)),
                "abar_next": self._constant(np.array([step.abar_next], np.float32)),
            }
            for step in self._bundle.steps(steps)
        ]

    def _constant(self, array: npt.NDArray[np.float32]) -> Tensor:
        array.setflags(write=False)  # a backend that reads in place must not write there
        return self._backend.upload(array)
