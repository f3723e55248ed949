# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Measures each part of the method with models that lack one of them, trained alike.

full                     the method
without-estimates        F does not see the streams' estimates z~ (Eq. 9). The paper's Model I
without-segmentation     neither the head's loss (Eq. 16) nor the mask of thermal classes (Eq. 11).
                         The paper's Model II: w does not depend on the head in any other way
fused-afterwards         the streams run to their ends, and F mixes their images. The paper's Model
                         III; for K = 1 it equals `full` and is left out
restoring-stream-alone   the visible stream is mixed with itself: no thermal knowledge. The paper's
                         Model IV; F still gives the masks
without-restoration      the visible stream learns the degraded image itself. Ours
equal-weights            w is 1/2 everywhere: no learnt fusion. Ours
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from magicfuse_ros.bundle.schedule import Step, ddim_steps
from magicfuse_training.data.crops import Batch
from magicfuse_training.losses.image import detail_l1
from magicfuse_training.model import MagicFuse, levels_of
from magicfuse_training.networks.fusion import FusionNetwork
from magicfuse_training.preset import Preset
from magicfuse_training.stages.randomness import of_step
from magicfuse_training.stages.stage import Loss, Stage
from magicfuse_training.stages.stages import STAGES, mkf_loss
from magicfuse_training.stages.start import in_small_steps


class _WithoutEstimates(FusionNetwork):
    def forward(
        self, x0_ikr: Tensor, x0_ckg: Tensor, *rest: Any, **more: Any
    ) -> tuple[Tensor, Tensor]:
        return super().forward(torch.zeros_like(x0_ikr), torch.zeros_like(x0_ckg), *rest, **more)


class WithoutEstimates(MagicFuse):
    """F sees z, the streams' noise and the condition, but no estimate of either image."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.mkf = _fusion_network(_WithoutEstimates, preset)


class FusedAfterwards(MagicFuse):
    """Mixes the streams' final images: F runs at their last step and sees no fused z."""

    def fuse(
        self,
        ikr: tuple[Tensor, Tensor],
        ckg: tuple[Tensor, Tensor],
        z: Tensor,
        z_seg: Tensor,
        t: Tensor,
        abar: Tensor,
        abar_next: Tensor,
        tau: Tensor,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix the streams' estimates; z is unchanged. Shapes as in `MagicFuse.fuse`."""
        a = abar[:, None, None, None]
        w, z_seg = self.weigh(ikr, ckg, torch.zeros_like(z), z_seg, t, a, tau, condition)
        return w * ikr[1] + (1 - w) * ckg[1], z, z_seg, w


class RestoringStreamAlone(MagicFuse):
    """Mixes the visible stream with itself."""

    def fuse(
        self, ikr: tuple[Tensor, Tensor], ckg: tuple[Tensor, Tensor], *rest: Any, **more: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do one DDIM step of mkf on (ikr, ikr); shapes as in `MagicFuse.fuse`."""
        return super().fuse(ikr, ikr, *rest, **more)


class _EqualWeights(FusionNetwork):
    def forward(self, *inputs: Any, **more: Any) -> tuple[Tensor, Tensor]:
        w, z_seg = super().forward(*inputs, **more)
        return torch.full_like(w, 0.5), z_seg


class EqualWeights(MagicFuse):
    """Sets w to 1/2 everywhere."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.mkf = _fusion_network(_EqualWeights, preset)


def _fusion_network(kind: type[FusionNetwork], preset: Preset) -> FusionNetwork:
    channels = preset.autoencoder.stream_channels, preset.autoencoder.latent_channels
    return kind(preset.mkf, *channels, len(preset.classes))


def degraded_loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
    """Teach the visible stream to reproduce the degraded image, as in Algorithm 1.

    The loss is at a random step of its own sampler, and in image space: a bundle cannot encode
    images to latents.
    """
    preset = model.preset
    steps = ddim_steps(preset.schedule, preset.timesteps(of_step.choice(preset.steps)))
    stop = of_step.randrange(len(steps))
    with torch.no_grad():
        condition, *details = model.encoder(batch["degraded"])
    z = model.start(condition).z_ikr

    def denoise(step: Step) -> tuple[Tensor, Tensor, Tensor]:
        return model.denoise(model.ikr, condition, z, *levels_of(step, condition))

    with torch.no_grad():
        for step in steps[:stop]:
            z = denoise(step)[2]
    image = model.decoder(denoise(steps[stop])[1], *details).float()
    return {"ikr": detail_l1(image, batch["degraded"], image.new_ones(len(image), 1, 1, 1))}


@dataclass(frozen=True)
class Ablation:
    """A variant: its model, its training, and tau."""

    lacks: str
    paper: str = ""  # the number of the paper's model
    model: type[MagicFuse] = MagicFuse
    ikr: Loss | None = None  # the loss that retrains its visible stream
    mkf: Loss = mkf_loss
    tau: float | None = None  # None: the preset's
    semantics: bool = True  # whether its masks are meaningful
    of_several_steps: bool = False  # whether it is the full model at K = 1

    def stages(self, go_on: bool) -> list[Stage]:
        """Return the stages to train, in order.

        Args:
            go_on: start from trained networks, including F and S, in small steps and with their
                batch statistics, so that a short budget shows what is missing and not a restart.
        """
        fusion = replace(STAGES["mkf"], loss=self.mkf)
        if go_on:
            fusion = in_small_steps(fusion)
        if self.ikr is None:
            return [fusion]
        return [replace(fusion, name="ikr", trained=("ikr",), loss=self.ikr), fusion]


ABLATIONS = {
    "full": Ablation("nothing"),
    "without-estimates": Ablation("z~ in Eq. 9", paper="I", model=WithoutEstimates),
    "without-segmentation": Ablation(
        "Eq. 16, and the mask of Eq. 11",
        paper="II",
        mkf=partial(mkf_loss, semantics=False),
        tau=1.0,
        semantics=False,
    ),
    "fused-afterwards": Ablation(
        "fusion in the diffusion",
        paper="III",
        model=FusedAfterwards,
        mkf=partial(mkf_loss, at_the_end=True),
        of_several_steps=True,
    ),
    "restoring-stream-alone": Ablation("thermal knowledge", paper="IV", model=RestoringStreamAlone),
    "without-restoration": Ablation("restoration", ikr=degraded_loss),
    "equal-weights": Ablation("learnt fusion", model=EqualWeights),
}


def ablations_of(preset: Preset) -> dict[str, Ablation]:
    """Return the distinct variants at a preset's default K."""
    several = preset.default_steps > 1
    return {k: a for k, a in ABLATIONS.items() if several or not a.of_several_steps}


def build(ablation: Ablation, preset: Preset) -> MagicFuse:
    """Return a variant with random weights.

    All variants are trained only for the preset's default K, because they are scored at it.
    """
    tau = preset.tau if ablation.tau is None else ablation.tau
    return ablation.model(preset.model_copy(update={"tau": tau, "steps": [preset.default_steps]}))
