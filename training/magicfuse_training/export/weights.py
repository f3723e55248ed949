# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads the weights of an exported bundle for further training."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
from onnx import numpy_helper

from magicfuse_ros.bundle import NETWORKS, Bundle
from magicfuse_training.errors import TrainingError
from magicfuse_training.model import MagicFuse

# Each graph's module has its own name for its network; see export/graphs.py.
_PREFIXES = {
    "ikr": {"unet.": "ikr."},
    "ckg": {"unet.": "ckg."},
    "segmentation": {"head.": "segmentation."},
}
# Only training uses these; with `latent_only` the condition is the latent, and is exported.
_NOT_EXPORTED = ("encoder.latent.", "num_batches_tracked")
# They start as the identity, or at zero: older bundles have fewer of them, or none.
NEUTRAL_AT_FIRST = ("mkf.readout.", "segmentation.temperature")
_MAY_BE_NEW = (
    "encoder.context.deeper.", "encoder.context.last.", "segmentation.scene.", *NEUTRAL_AT_FIRST
)  # fmt: skip
# Older bundles have fewer channels here.
_MAY_BE_NARROW = (
    "encoder.", "decoder.merge.", "ikr.inlet.", "ckg.inlet.", "mkf.inlet.", "mkf.readout.",
    "segmentation.conv1.", "segmentation.conv2.", "segmentation.scene.",
)  # fmt: skip
_LATENT_LAST = ("ikr.inlet.", "ckg.inlet.")  # they read the condition, and then a latent


def may_lack(name: str) -> bool:
    """Return whether a bundle may lack a weight of its preset."""
    return any(part in name for part in _NOT_EXPORTED + _MAY_BE_NEW)


def check_float32(bundle: Bundle) -> None:
    """Check that a bundle holds float32 graphs: their weights can be trained on and quantised.

    Raises:
        TrainingError: if it does not.
    """
    if (precision := bundle.manifest.precision) != "float32":
        raise TrainingError(
            f"bundle '{bundle.root}' has precision {precision}; expected one of float32, since its "
            "weights are read back"
        )


def exported_weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return a bundle's weights as float32, by their names in the model."""
    found: dict[str, torch.Tensor] = {}
    for network in NETWORKS:
        for tensor in onnx.load(bundle.path(network)).graph.initializer:
            name = tensor.name.removesuffix(".half").removeprefix("model.")
            for old, new in _PREFIXES.get(network, {}).items():
                name = new + name.removeprefix(old) if name.startswith(old) else name
            found[name] = torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()
    return found


def load_weights(
    model: MagicFuse, bundle: Bundle, renew: Sequence[str] = (), leave_out: Sequence[str] = ()
) -> None:
    """Load a bundle's float16 weights into a model of the same preset.

    The head that makes latents of clean images is not part of a bundle and keeps its values. A
    bundle can therefore start `few_step` but not the earlier stages. Parts that older bundles lack
    keep their values, too, and so do weights whose names start with one of `renew`. Channels that
    an older encoder or head lacks keep their random kernels, and whatever was there before weighs
    them with zero. Weights whose names start with one of `leave_out` are dropped if the model lacks
    them; of a wider encoder or head, the last channels are.

    Raises:
        TrainingError: see `check_float32`.
        ValueError: names the first weight that is missing or has another shape, or that belongs to
            a part that the preset lacks; or a value of `renew` that fits no weight.
    """
    check_float32(bundle)
    found = exported_weights(bundle)
    state = model.state_dict()
    parts = (n for n in found if n not in state and n.startswith(_MAY_BE_NEW))
    if unknown := [n for n in parts if not n.startswith(tuple(leave_out))]:
        raise ValueError(
            f"bundle '{bundle.root}' has the weight '{unknown[0]}'; "
            f"preset '{model.preset.name}' has no such part"
        )
    if unknown := [n for n in renew if not any(s.startswith(n) for s in state)]:
        raise ValueError(f"renew has '{unknown[0]}'; no weight's name starts with it")
    for name, value in state.items():
        if name.startswith(tuple(renew)) or (may_lack(name) and name not in found):
            continue
        if name in found and name.startswith(_MAY_BE_NARROW):
            latent = model.preset.autoencoder.latent_channels
            last = latent if name.startswith(_LATENT_LAST) and value.dim() > 1 else 0
            there, here = _last_first(found[name], last), _last_first(value, last)
            if name.startswith(tuple(leave_out)):
                there = there[tuple(slice(n) for n in here.shape)]
            found[name] = _last_first(_widened(there, here), -last)
        if name not in found or found[name].shape != value.shape:
            shape = tuple(found[name].shape) if name in found else "missing"
            raise ValueError(
                f"bundle '{bundle.root}': weight '{name}' is {shape}; "
                f"preset '{model.preset.name}' has {tuple(value.shape)}"
            )
        state[name] = found[name]
    model.load_state_dict(state)


def _last_first(weight: torch.Tensor, count: int) -> torch.Tensor:
    """Return a layer's weights with its last `count` inputs in front; below 0, back at the end."""
    return weight.roll(count, 1) if count else weight


def _widened(narrow: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
    """Return a layer's weights with those of `wide` for its new outputs, and 0 for new inputs.

    `narrow` itself is returned if `wide` is smaller in any axis.
    """
    if narrow.dim() != wide.dim() or any(
        a > b for a, b in zip(narrow.shape, wide.shape, strict=True)
    ):
        return narrow
    made = wide.clone()
    made[: narrow.shape[0]] = 0
    made[tuple(slice(n) for n in narrow.shape)] = narrow
    return made
