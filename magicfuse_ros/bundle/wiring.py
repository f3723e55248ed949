# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Checks how the graphs of a bundle fit together, before the first frame.

If the sampler does not provide an input itself, the encoder output of that name does. The encoder
may take `noise` of the latent size, with as many channels as its graph has.
"""

from __future__ import annotations

from magicfuse_ros.bundle import NETWORKS, Manifest, NetworkName, TensorSpec
from magicfuse_ros.errors import BundleError

_STEP = ("t", "abar_t", "abar_next")
_PROVIDED: dict[NetworkName, frozenset[str]] = {
    "encoder": frozenset({"image", "noise"}),
    "ikr": frozenset({"z", *_STEP}),
    "ckg": frozenset({"z", *_STEP}),
    "mkf": frozenset({"z", "z_seg", "x0_ikr", "x0_ckg", "eps_ikr", "eps_ckg", "tau", *_STEP}),
    "segmentation": frozenset({"z_seg"}),
    "decoder": frozenset({"x0", "visible"}),
}
_REQUIRED: dict[NetworkName, tuple[str, ...]] = {
    "encoder": (),
    "ikr": ("eps", "x0", "z_next"),
    "ckg": ("eps", "x0", "z_next"),
    "mkf": ("x0", "z_next", "z_seg_next"),
    "segmentation": ("mask", "confidence"),
    "decoder": ("image",),
}


def latent_shape(manifest: Manifest) -> tuple[int, int, int, int]:
    """Return the shape [1, L, h, w] of every stream's z."""
    scale = manifest.latent_scale
    return (1, manifest.latent_channels, manifest.height // scale, manifest.width // scale)


def noise_shape(manifest: Manifest) -> tuple[int, int, int, int] | None:
    """Return the shape [1, N, h, w] of the noise that the encoder takes; None if it takes none."""
    for tensor in manifest.networks["encoder"].inputs:
        if tensor.name == "noise":
            channels = tensor.shape[1] if len(tensor.shape) == 4 else 1
            return (1, channels, *latent_shape(manifest)[2:])
    return None


def wire(manifest: Manifest) -> dict[NetworkName, tuple[str, ...]]:
    """Return the input names of each network; the sampler can supply all of them.

    Raises:
        BundleError: if an input has no source, an output that the sampler reads is missing, or a
            tensor's dtype or shape is not the one expected for its name.
    """
    known = _known_tensors(manifest)
    encoded = {t.name: t for t in manifest.networks["encoder"].outputs}
    for name in NETWORKS:
        spec = manifest.networks[name]
        for tensor in spec.inputs:
            if tensor.name in _PROVIDED[name]:
                _compare(manifest, name, tensor, known[tensor.name])
            elif name != "encoder" and tensor.name in encoded:
                _compare(manifest, name, tensor, encoded[tensor.name])
            else:
                raise BundleError(
                    f"bundle '{manifest.name}': {spec.file} ({name}) needs the input "
                    f"'{tensor.name}'; known are {sorted(_PROVIDED[name] | encoded.keys())}"
                )
        outputs = {t.name: t for t in spec.outputs}
        for required in _REQUIRED[name]:
            if required not in outputs:
                raise BundleError(
                    f"bundle '{manifest.name}': {spec.file} ({name}) lacks the output "
                    f"'{required}'; it has {sorted(outputs)}"
                )
            _compare(manifest, name, outputs[required], known[required])
    return {n: tuple(t.name for t in manifest.networks[n].inputs) for n in NETWORKS}


def _known_tensors(manifest: Manifest) -> dict[str, TensorSpec]:
    size = (manifest.height, manifest.width)
    latent = latent_shape(manifest)
    scores = (1, len(manifest.classes), *latent[2:])
    latents = ("z", "z_next", "x0", "x0_ikr", "x0_ckg", "eps", "eps_ikr", "eps_ckg")
    tensors = [
        TensorSpec(name="image", dtype="uint8", shape=(1, *size, 3)),
        TensorSpec(name="visible", dtype="uint8", shape=(1, *size, 3)),
        *(TensorSpec(name=n, dtype="uint8", shape=(1, *size)) for n in ("mask", "confidence")),
        *(TensorSpec(name=n, dtype="float32", shape=latent) for n in latents),
        *(TensorSpec(name=n, dtype="float32", shape=scores) for n in ("z_seg", "z_seg_next")),
        *(TensorSpec(name=n, dtype="float32", shape=(1,)) for n in (*_STEP, "tau")),
    ]
    if noise := noise_shape(manifest):
        tensors.append(TensorSpec(name="noise", dtype="float32", shape=noise))
    return {t.name: t for t in tensors}


def _compare(
    manifest: Manifest, name: NetworkName, tensor: TensorSpec, expected: TensorSpec
) -> None:
    if tensor != expected:
        raise BundleError(
            f"bundle '{manifest.name}': {manifest.networks[name].file} ({name}): "
            f"'{tensor.name}' is {tensor.dtype} {list(tensor.shape)}; "
            f"expected {expected.dtype} {list(expected.shape)}"
        )
