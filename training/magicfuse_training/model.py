# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""MagicFuse as one module: the five networks, their branches' DDIM steps, and the sampling loop.

Each branch does its own DDIM step; the same methods are trained, exported and run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from magicfuse_ros.bundle.schedule import Step, ddim_steps
from magicfuse_training.diffusion import algebra
from magicfuse_training.networks.autoencoder import Decoder, Encoder
from magicfuse_training.networks.blocks import activation
from magicfuse_training.networks.fusion import FusionNetwork, SegmentationHead
from magicfuse_training.networks.unet import UNet
from magicfuse_training.preset import Preset


@dataclass
class Streams:
    """State of the three streams at one level: (B, L, h, w); z_seg: (B, classes, h, w)."""

    z_ikr: Tensor
    z_ckg: Tensor
    z_mkf: Tensor
    z_seg: Tensor
    x0_ikr: Tensor | None = None
    x0_ckg: Tensor | None = None
    x0_mkf: Tensor | None = None
    w: Tensor | None = None


def levels_of(step: Step, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return t, abar and abar_next of a step, (B,) float32, for a condition (B, C, h, w)."""
    ones = condition.new_ones(len(condition), dtype=torch.float32)
    return ones * step.t, ones * step.abar_t, ones * step.abar_next


class MagicFuse(nn.Module):
    """The five networks of a preset."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        ae, latent = preset.autoencoder, preset.autoencoder.latent_channels
        classes = len(preset.classes)
        self.preset = preset
        self.prediction = preset.schedule.prediction
        self.encoder = Encoder(ae)
        self.decoder = Decoder(ae)
        self.ikr = UNet(preset.ikr, ae.stream_channels, latent)
        self.ckg = UNet(preset.ckg, ae.stream_channels, latent)
        self.mkf = FusionNetwork(preset.mkf, ae.stream_channels, latent, classes)
        self.segmentation = SegmentationHead(
            classes,
            ae.detail_channels,
            preset.segmentation_width,
            activation(ae.act),
            ae.scale,
            ae.condition_channels if preset.segmentation_condition else 0,
        )
        self.thermal_ids = [c.id for c in preset.classes if c.thermal]
        self.other_ids = [c.id for c in preset.classes if not c.thermal]

    def class_scores(self, z_seg: Tensor, condition: Tensor, *details: Tensor) -> Tensor:
        """Return the head's scores: see `SegmentationHead.forward`; details: the encoder's."""
        scores: Tensor = self.segmentation(z_seg, details[0] if details else None, condition)
        return scores

    def denoise(
        self,
        unet: nn.Module,
        condition: Tensor,
        z: Tensor,
        t: Tensor,
        abar: Tensor,
        abar_next: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Do one DDIM step of ikr or ckg; return (eps, x0, z_next). t, abar, abar_next: (B,)."""
        a, b = abar[:, None, None, None], abar_next[:, None, None, None]
        output = unet(condition, self.seen(z, a), t).float()
        eps, x0 = algebra.split(self.prediction, output, z, a)
        return eps, x0, algebra.ddim(x0, eps, b)

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
        """Do one DDIM step of mkf (Eq. 8 to 13); return (x0, z_next, z_seg_next, w).

        `ikr` and `ckg` are the streams' (eps, x0) of this step; tau: (B,) or (1,); condition: see
        `FusionNetwork.forward`.
        """
        a, b = abar[:, None, None, None], abar_next[:, None, None, None]
        w, z_seg = self.weigh(ikr, ckg, z, z_seg, t, a, tau, condition)
        eps, x0 = algebra.fuse(self.prediction, w, z, ikr, ckg, a)
        return x0, algebra.ddim(x0, eps, b), z_seg, w

    def weigh(
        self,
        ikr: tuple[Tensor, Tensor],
        ckg: tuple[Tensor, Tensor],
        z: Tensor,
        z_seg: Tensor,
        t: Tensor,
        a: Tensor,
        tau: Tensor,
        condition: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return w, limited where the mask shows a thermal class, and the next z_seg (Eq. 9 to 11).

        `a` is abar, (B, 1, 1, 1); the others are as in `fuse`.
        """
        if self.prediction == "v":  # F sees the quantity that is mixed (see algebra.fuse)
            mixed = [algebra.velocity(x0, eps, a) for eps, x0 in (ikr, ckg)]
        else:
            mixed = [ikr[0], ckg[0]]
        noise = torch.cat(mixed, dim=1)
        w, z_seg = self.mkf(ikr[1], ckg[1], self.seen(z, a), noise, z_seg, t, condition)
        w, z_seg = w.float(), z_seg.float()
        mask = self.thermal_mask(z_seg)  # of the state just updated, as in the release
        return mask * torch.minimum(w, tau[:, None, None, None]) + (1 - mask) * w, z_seg  # Eq. 11

    def seen(self, z: Tensor, a: Tensor) -> Tensor:
        """Return what a network sees of z: with `v`, its linear estimate of x0, sqrt(abar) z.

        At zero terminal SNR this is zero, while z_T is pure noise: a small network that has to
        average the noise away loses the fine detail.
        """
        return a.sqrt() * z if self.prediction == "v" else z

    @torch.no_grad()
    def thermal_mask(self, z_seg: Tensor) -> Tensor:
        """Return M of Eq. 11, (B, 1, h, w) float32 in [0, 1]: see `FusionConfig.thermal_mask`."""
        if self.preset.mkf.thermal_mask == "probability":
            return z_seg.softmax(1)[:, self.thermal_ids].sum(1, keepdim=True)
        thermal = z_seg[:, self.thermal_ids].amax(1, keepdim=True)
        return (thermal > z_seg[:, self.other_ids].amax(1, keepdim=True)).float()

    def start(self, condition: Tensor) -> Streams:
        """Return the shared Gaussian start z_T and the preset's initial segmentation state."""
        b, _, h, w = condition.shape
        z = torch.randn(b, self.preset.autoencoder.latent_channels, h, w, device=condition.device)
        z_seg = z.new_zeros(b, len(self.preset.classes), h, w)
        if self.preset.z_seg_start == "normal":
            z_seg = torch.randn_like(z_seg)
        return Streams(z, z, z, z_seg)

    def sample(self, streams: Streams, condition: Tensor, count: int, tau: Tensor) -> Streams:
        """Do all steps of the sampler with K = `count`; condition: (B, C, h, w); tau: (B,)."""
        for step in ddim_steps(self.preset.schedule, self.preset.timesteps(count)):
            streams = self.advance(streams, condition, step, tau)
        return streams

    def advance(self, streams: Streams, condition: Tensor, step: Step, tau: Tensor) -> Streams:
        """Do one step of all three streams."""
        levels = levels_of(step, condition)
        eps_i, x0_i, z_i = self.denoise(self.ikr, condition, streams.z_ikr, *levels)
        eps_c, x0_c, z_c = self.denoise(self.ckg, condition, streams.z_ckg, *levels)
        x0, z, z_seg, w = self.fuse(
            (eps_i, x0_i), (eps_c, x0_c), streams.z_mkf, streams.z_seg, *levels, tau, condition
        )
        return Streams(z_i, z_c, z, z_seg, x0_i, x0_c, x0, w)
