"""What each part of the method is worth: models that lack one of them, trained alike.

full   the method
I      no restoration: the visible stream learns the degraded image itself
II     no thermal knowledge: the fused stream mixes the visible stream with itself
III    no learnt fusion: both streams' noise at equal weights, instead of F's
IV     no semantics: neither the head's loss (Eq. 16) nor the mask of thermal classes (Eq. 11)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magicfuse_training.networks.fusion import FusionNetwork
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.stage import Loss
from magicfuse_training.stages.stages import degraded_loss, fusion_only_loss, ikr_loss, mkf_loss


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


@dataclass(frozen=True)
class Ablation:
    """A variant: its model, its two losses, and tau."""

    what: str
    model: type[MagicFuse] = MagicFuse
    ikr: Loss = ikr_loss
    mkf: Loss = mkf_loss
    tau: float | None = None  # the preset's, if None
    semantics: bool = True  # whether its masks mean anything


ABLATIONS = {
    "full": Ablation("the method"),
    "I": Ablation("no restoration", ikr=degraded_loss),
    "II": Ablation("no thermal knowledge", model=WithoutThermal),
    "III": Ablation("no learnt fusion", model=WithoutFusion),
    "IV": Ablation("no semantics", mkf=fusion_only_loss, tau=1.0, semantics=False),
}
