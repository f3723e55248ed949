"""The stage of an adaptation: `few_step` without a thermal image to learn from.

Neither the encoder nor ckg nor the decoder is trained: the thermal estimate follows from them
alone, and nothing in one camera's frames tells how warm things are. So it stays as it was, bit for
bit, and what restores, fuses and labels is fitted to the features that there are.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from magicfuse_ros.bundle import Bundle
from magicfuse_training.adaptation.config import AdaptConfig
from magicfuse_training.data.classes import CLASSES
from magicfuse_training.data.crops import Batch
from magicfuse_training.errors import TrainingError
from magicfuse_training.export.weights import load_weights
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.average import weighted_mean
from magicfuse_training.stages.optimizer import AdamWConfig
from magicfuse_training.stages.stage import Stage
from magicfuse_training.stages.stages import STAGES, few_step_loss

TRAINED = ("ikr", "mkf", "segmentation")
_TERMS = ("restored", "segmentation", "fusion")  # the others are of the thermal estimate


def adaptation_stage(config: AdaptConfig) -> Stage:
    """Return the stage; a preset's own rate for `few_step` is not for it."""
    return replace(
        STAGES["few_step"],
        name="adapt",
        trained=TRAINED,
        loss=adaptation_loss,
        optimizer=AdamWConfig(learning_rate=config.learning_rate),
    )


def adaptation_loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
    """Return the losses of `few_step` that an unpaired frame has a target for."""
    terms = few_step_loss(model, batch)
    return {name: terms[name] for name in _TERMS}


def preset_of(bundle: Bundle, preset: Preset) -> Preset:
    """Return a preset with what a bundle says of itself: its K, its size, how it codes uncertainty.

    An older version's preset of the same name may have had others; what the networks are must be
    the same.

    Raises:
        TrainingError: for a bundle that cannot be trained on: of other classes than the project's,
            not of float32, or with step grids that the preset does not have.
    """
    manifest = bundle.manifest
    if manifest.precision != "float32":
        raise TrainingError(
            f"bundle '{bundle.root}' is of {manifest.precision}; expected one of float32, "
            "since its weights are trained on"
        )
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
    found = preset.model_copy(update={**update, "steps": sorted(manifest.step_grids)})
    for count, grid in manifest.step_grids.items():
        if found.timesteps(count) != grid:
            raise TrainingError(
                f"bundle '{bundle.root}' has the time steps {grid} at K = {count}; "
                f"preset '{preset.name}' has {found.timesteps(count)}"
            )
    return found


def model_of(bundle: Bundle, preset: Preset) -> MagicFuse:
    """Return the model of a bundle; `preset` as `preset_of` returns it.

    Raises:
        TrainingError: if the bundle's weights are not those of the preset's networks.
    """
    torch.manual_seed(0)  # of the latents' head, which no bundle has and nothing here uses
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
    """Return `new` with `share` of its own weights, 0 to 1, and the rest of `old`'s: in place."""
    states = [model.cpu().state_dict() for model in (old, new)]
    new.load_state_dict(weighted_mean(states, [1 - share, share], TRAINED))
    return new
