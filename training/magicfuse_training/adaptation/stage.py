# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The training stage of an adaptation: `few_step` without thermal images.

The encoder, ckg and the decoder stay frozen. The thermal estimate depends on them alone, and
nothing in one camera's frames tells how warm objects are. The estimate therefore stays the same bit
for bit, and the layers that restore, fuse and segment adapt to the existing features.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from magicfuse_ros.bundle import Bundle
from magicfuse_training.adaptation.config import AdaptConfig
from magicfuse_training.data.classes import CLASSES
from magicfuse_training.data.crops import Batch
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.weights import check_float32, exported_weights, load_weights
from magicfuse_training.model import MagicFuse
from magicfuse_training.optimizer import AdamWConfig
from magicfuse_training.preset import Preset
from magicfuse_training.stages.average import weighted_mean
from magicfuse_training.stages.head import scores
from magicfuse_training.stages.stage import Loss, Stage
from magicfuse_training.stages.stages import STAGES, few_step_loss

TRAINED = ("ikr", "mkf", "segmentation")
_TERMS = ("restored", "segmentation", "fusion")  # the other losses concern the thermal estimate


def adaptation_stage(config: AdaptConfig) -> Stage:
    """Return the stage; it ignores a preset's own learning rate for `few_step`."""
    return replace(
        STAGES["few_step"],
        name="adapt",
        trained=TRAINED,
        loss=None,
        loss_from=adaptation_loss,
        optimizer=AdamWConfig(learning_rate=config.learning_rate),
        undegraded=True,
    )


def adaptation_loss(start: MagicFuse) -> Loss:
    """Return the losses of `few_step` for which an unpaired frame has a target.

    The masks' target at every pixel is the mean of the probabilities that `start` (copied) gives
    for the frame as the camera saw it and for the mirrored frame: the mean is right more often than
    either. The model sees the same frame dark, hazy, noisy or made night. Labels of only the surest
    pixels would teach the model what it already knows and let the other pixels drift.
    """
    before = copy.deepcopy(start).eval().requires_grad_(False)

    def of_head(model: MagicFuse, z_seg: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        seen = batch["seen"]
        before.to(seen.device)
        with torch.no_grad():
            wanted = probabilities(before, seen) + probabilities(before, seen.flip(3)).flip(3)
        wanted = wanted / 2
        state = F.interpolate(wanted, size=z_seg.shape[-2:], mode="area")
        weight = model.preset.losses.state
        return F.cross_entropy(logits, wanted) + weight * F.cross_entropy(z_seg, state)

    def loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
        terms = few_step_loss(model, batch, of_head)
        return {name: terms[name] for name in _TERMS}

    return loss


def probabilities(model: MagicFuse, image: Tensor) -> Tensor:
    """Return the probabilities of the classes, (B, classes, H/2, W/2), at the default K."""
    condition, *details = model.encoder(image)
    tau = image.new_full((1,), model.preset.tau)
    streams = model.sample(model.start(condition), condition, model.preset.default_steps, tau)
    return scores(model, streams.z_seg, condition, details).softmax(1)


def preset_of(bundle: Bundle, preset: Preset) -> Preset:
    """Return a preset with the bundle's own K, size, depth of the context and uncertainty coding.

    An older version's preset of the same name may differ in these. All other networks must be the
    same. Residual blocks that the bundle lacks would not be trained here: they would cost time on
    the vehicle and compute nothing.

    Raises:
        TrainingError: if the bundle cannot be trained further: its classes are not the project's,
            it is not float32, or it has step grids that the preset lacks.
    """
    manifest = bundle.manifest
    check_float32(bundle)
    if (names := [c.name for c in manifest.classes]) != list(CLASSES):
        raise TrainingError(
            f"bundle '{bundle.root}' has the classes {', '.join(names)}; "
            f"expected the project's: {', '.join(CLASSES)}"
        )
    same = (
        "height", "width", "schedule", "default_steps", "tau", "seed", "thermal_uncertainty",
        "z_seg_start", "classes",
    )  # fmt: skip
    update = {name: getattr(manifest, name) for name in same}
    weights = exported_weights(bundle)

    def blocks(of: str) -> int:
        return len({n.removeprefix(of).split(".")[0] for n in weights if n.startswith(of)})

    widths = preset.autoencoder.context_channels
    deeper = [blocks(f"encoder.context.deeper.{i}.") for i in range(len(widths))]
    depth = {
        "context_blocks": [1 + count for count in deeper],
        "condition_blocks": blocks("encoder.context.last."),
    }
    update["autoencoder"] = preset.autoencoder.model_copy(update=depth)
    found = preset.model_copy(update={**update, "steps": sorted(manifest.step_grids)})
    for count, grid in manifest.step_grids.items():
        if found.timesteps(count) != grid:
            raise TrainingError(
                f"bundle '{bundle.root}' has the time steps {grid} at K = {count}; "
                f"preset '{preset.name}' has {found.timesteps(count)}"
            )
    return found


def model_of(bundle: Bundle, preset: Preset) -> MagicFuse:
    """Return the model of a bundle; `preset` is the result of `preset_of`.

    Raises:
        TrainingError: if the bundle's weights are not those of the preset's networks.
    """
    torch.manual_seed(0)  # for the latents' head, which no bundle contains and nothing here uses
    model = MagicFuse(preset)
    try:
        load_weights(model, bundle)
    except ValueError as error:
        raise TrainingError(
            f"{error}. The preset may be of another version than the bundle: give the YAML file "
            "that it was trained with as --preset"
        ) from error
    return model


def interpolated(old: MagicFuse, new: MagicFuse, share: float) -> MagicFuse:
    """Return `new` averaged in place with `old`: `share`, 0 to 1, is the weight of `new`."""
    states = [model.cpu().state_dict() for model in (old, new)]
    new.load_state_dict(weighted_mean(states, [1 - share, share], TRAINED))
    return new
