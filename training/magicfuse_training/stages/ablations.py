"""What each part of the method is worth: models that lack one of them, trained alike.

full   the method
I      no restoration: the visible stream learns the degraded image itself
II     no thermal knowledge: the fused stream mixes the visible stream with itself
III    no learnt fusion: both streams' noise at equal weights, instead of F's
IV     no semantics: neither the head's loss (Eq. 16) nor the mask of thermal classes (Eq. 11)
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from magicfuse_ros.schedule import Step, ddim_steps
from magicfuse_training.data.crops import Batch
from magicfuse_training.losses.image import detail_l1
from magicfuse_training.networks.fusion import FusionNetwork
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.stage import Loss, Stage
from magicfuse_training.stages.stages import STAGES, fusion_only_loss, mkf_loss
from magicfuse_training.stages.start import in_small_steps


class WithoutThermal(MagicFuse):
    """Model II: what is mixed is the visible stream, twice."""

    def fuse(
        self, ikr: tuple[Tensor, Tensor], ckg: tuple[Tensor, Tensor], *rest: Any, **more: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do one DDIM step of mkf on (ikr, ikr); shapes as in `MagicFuse.fuse`."""
        return super().fuse(ikr, ikr, *rest, **more)


class _EqualWeights(FusionNetwork):
    def forward(self, *inputs: Any, **more: Any) -> tuple[Tensor, Tensor]:
        w, z_seg = super().forward(*inputs, **more)
        return torch.full_like(w, 0.5), z_seg


class WithoutFusion(MagicFuse):
    """Model III: w is 1/2 everywhere."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.mkf = _EqualWeights(
            preset.mkf,
            preset.autoencoder.stream_channels,
            preset.autoencoder.latent_channels,
            len(preset.classes),
        )


def degraded_loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
    """Teach the visible stream of Model I to give the degraded image back, as Algorithm 1 would.

    At a random step of its own sampler, and in image space: a bundle has no latents of images.
    """
    preset = model.preset
    steps = ddim_steps(preset.schedule, preset.timesteps(random.choice(preset.steps)))
    stop = random.randrange(len(steps))
    with torch.no_grad():
        condition, *details = model.encoder(batch["degraded"])
    ones, z = condition.new_ones(len(condition), dtype=torch.float32), model.start(condition).z_ikr

    def denoise(step: Step) -> tuple[Tensor, Tensor, Tensor]:
        levels = (ones * step.t, ones * step.abar_t, ones * step.abar_next)
        return model.denoise(model.ikr, condition, z, *levels)

    with torch.no_grad():
        for step in steps[:stop]:
            z = denoise(step)[2]
    image = model.decoder(denoise(steps[stop])[1], *details).float()
    return {"ikr": detail_l1(image, batch["degraded"], ones[:, None, None, None])}


@dataclass(frozen=True)
class Ablation:
    """A variant: its model, what it is trained for, and tau."""

    lacks: str
    model: type[MagicFuse] = MagicFuse
    ikr: Loss | None = None  # that its visible stream is trained anew with
    mkf: Loss = mkf_loss
    tau: float | None = None  # the preset's, if None
    semantics: bool = True  # whether its masks mean anything

    def stages(self, go_on: bool) -> list[Stage]:
        """Return the stages to train, in order.

        Args:
            go_on: from trained networks, F and S too: in small steps, with the statistics that
                they have, so that a short budget shows what is lacking and not a new beginning.
        """
        fusion = replace(STAGES["mkf"], loss=self.mkf)
        if go_on:
            fusion = in_small_steps(fusion)
        if self.ikr is None:
            return [fusion]
        return [replace(fusion, name="ikr", trained=("ikr",), loss=self.ikr), fusion]


ABLATIONS = {
    "full": Ablation("nothing"),
    "I": Ablation("restoration", ikr=degraded_loss),
    "II": Ablation("thermal knowledge", model=WithoutThermal),
    "III": Ablation("learnt fusion", model=WithoutFusion),
    "IV": Ablation("semantics", mkf=fusion_only_loss, tau=1.0, semantics=False),
}


def build(ablation: Ablation, preset: Preset) -> MagicFuse:
    """Return a variant with random weights.

    All variants are trained for the preset's default K alone: it is what they are scored at.
    """
    tau = preset.tau if ablation.tau is None else ablation.tau
    return ablation.model(preset.model_copy(update={"tau": tau, "steps": [preset.default_steps]}))
