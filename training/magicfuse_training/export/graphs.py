# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The six ONNX graphs of a bundle, as modules whose forward is exactly one graph.

Images enter and leave as uint8 NHWC. Every branch does its own DDIM step, so no arithmetic is left
between graphs. Casts from and to uint8 are at the very edge of a graph, because TensorRT has no
uint8 inside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.model import MagicFuse
from magicfuse_training.networks.autoencoder import CELL


class EncoderGraph(nn.Module):
    """image uint8 (1, H, W, 3), and noise if it takes some -> condition, and detail_4 if any."""

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
        ae = model.preset.autoencoder
        self.inputs = ("image", "noise") if ae.noise_channels else ("image",)
        self.outputs = ("condition", *detail_names(model))
        self.encoder = model.encoder

    def forward(self, image: Tensor, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Run the graph."""
        # Spread before permuting: OpenVINO then changes the axes without a copy.
        x = self.encoder.scaled(image.float() / 255).permute(0, 3, 1, 2)
        return self.encoder.condition_and_details(x, noise)


class StreamGraph(nn.Module):
    """One DDIM step of ikr or ckg."""

    inputs = ("condition", "z", "t", "abar_t", "abar_next")
    outputs = ("eps", "x0", "z_next")

    def __init__(self, model: MagicFuse, unet: nn.Module) -> None:
        super().__init__()
        self.model, self.unet = model, unet

    def forward(
        self, condition: Tensor, z: Tensor, t: Tensor, abar_t: Tensor, abar_next: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the graph."""
        return self.model.denoise(self.unet, condition, z, t, abar_t, abar_next)


class FusionGraph(nn.Module):
    """One DDIM step of mkf, which may also take the condition."""

    outputs = ("x0", "z_next", "z_seg_next", "w")

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
        streams = ("x0_ikr", "x0_ckg", "z", "eps_ikr", "eps_ckg", "z_seg")
        seen = ("condition",) if model.mkf.sees_condition else ()
        self.inputs = (*streams, "t", "abar_t", "abar_next", "tau", *seen)
        self.model = model

    def forward(
        self,
        x0_ikr: Tensor,
        x0_ckg: Tensor,
        z: Tensor,
        eps_ikr: Tensor,
        eps_ckg: Tensor,
        z_seg: Tensor,
        t: Tensor,
        abar_t: Tensor,
        abar_next: Tensor,
        tau: Tensor,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the graph."""
        return self.model.fuse(
            (eps_ikr, x0_ikr), (eps_ckg, x0_ckg), z, z_seg, t, abar_t, abar_next, tau, condition
        )


class SegmentationGraph(nn.Module):
    """z_seg, and what a refined head reads -> mask and confidence, uint8 (1, H, W)."""

    outputs = ("mask", "confidence")

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
        read = ("condition",) if model.preset.segmentation_condition else ()
        self.inputs = ("z_seg", *detail_names(model)[:1], *read)
        self.head = model.segmentation

    def forward(
        self, z_seg: Tensor, detail_4: Tensor | None = None, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the graph. A refined head decides the class at 1/2 and the confidence at 1/4.

        On a CPU, 11 scores per pixel cost more than the network; the head's confidence varies
        slowly.
        """
        logits = self.head(z_seg, detail_4, condition)
        # Without its batch axis, a map is stored plane by plane. OpenVINO then finds the best of 11
        # several times faster than with a pixel's channels side by side.
        scores = logits.squeeze(0)
        below = scores - scores.amax(dim=0, keepdim=True)
        if self.head.refined:
            below = below / self.head.temperature
        sums = below.exp().sum(0, keepdim=True)
        both = torch.cat([logits, 255 / sums[None]], dim=1)
        if self.head.refined:
            both = F.interpolate(both, scale_factor=2, mode="bilinear", align_corners=False)
        both = both.squeeze(0)
        mask = both[:-1].argmax(dim=0, keepdim=True)  # max(dim) would export a computed axis
        return self._labels(mask.float()), self._labels(both[-1:].round())

    def _labels(self, x: Tensor) -> Tensor:
        """Map (1, h, w) to uint8 (1, H, W)."""
        if self.head.refined:
            x = F.interpolate(x[None], scale_factor=2, mode="nearest")[0]
        return x.to(torch.uint8)


class DecoderGraph(nn.Module):
    """x0, and detail_4 and the degraded image if it takes them -> image uint8 (1, H, W, 3)."""

    outputs = ("image",)

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
        details = detail_names(model)
        self.inputs = ("x0", *details, "visible") if details else ("x0",)
        self.decoder = model.decoder

    def forward(self, x0: Tensor, *details: Tensor) -> Tensor:
        """Run the graph."""
        if self.decoder.latent_only:
            image = self.decoder(x0).permute(0, 2, 3, 1)
        else:
            detail, codes = details
            image = self._join(self.decoder.features(x0, detail), codes)
        result: Tensor = (image.clamp(0, 1) * 255).round().to(torch.uint8)
        return result

    def _join(self, h: Tensor, codes: Tensor) -> Tensor:
        """Do what Decoder.forward does to its features, but on the image's rows.

        The cells' channels are made in the order (row, column, colour), so that a row of a cell's
        pixels is contiguous; each row of a cell has its own gain. Permuting more than four axes, or
        colours, takes OpenVINO longer than the convolution.
        """
        pixels, gain = self.decoder.pixels, self.decoder.gain
        assert pixels.bias is not None and gain.bias is not None
        weight = pixels.weight.reshape(3, CELL, CELL, -1, 3, 3).permute(1, 2, 0, 3, 4, 5)
        bias = pixels.bias.reshape(3, CELL, CELL).permute(1, 2, 0)
        cells = F.conv2d(h, weight.flatten(0, 2), bias.flatten(), padding=1)
        gains = F.conv2d(h, gain.weight.repeat(CELL, 1, 1, 1) / 255, gain.bias.repeat(CELL) / 255)
        _, _, rows, columns = h.shape
        cells = cells.permute(0, 2, 3, 1).reshape(rows, columns, CELL, 3 * CELL)
        cells = cells.permute(0, 2, 1, 3).reshape(rows, CELL, -1)
        gains = gains.permute(0, 2, 3, 1).reshape(rows, 1, -1)
        image = cells + gains * codes.reshape(rows, CELL, -1).float()
        return image.reshape(1, CELL * rows, CELL * columns, 3)


def detail_names(model: MagicFuse) -> tuple[str, ...]:
    """Return the names of the features that the encoder passes to the head and the decoder."""
    return () if model.preset.autoencoder.latent_only else ("detail_4",)


Graph = EncoderGraph | StreamGraph | FusionGraph | SegmentationGraph | DecoderGraph


def graphs(model: MagicFuse) -> dict[str, Graph]:
    """Return the six graphs of a model by their bundle names."""
    return {
        "encoder": EncoderGraph(model),
        "ikr": StreamGraph(model, model.ikr),
        "ckg": StreamGraph(model, model.ckg),
        "mkf": FusionGraph(model),
        "segmentation": SegmentationGraph(model),
        "decoder": DecoderGraph(model),
    }


def example_inputs(model: MagicFuse) -> dict[str, Tensor]:
    """Return one tensor for every possible input of a graph, by name, at the preset's size."""
    preset, generator = model.preset, torch.Generator().manual_seed(0)
    height, width = preset.height, preset.width
    size = (height // preset.autoencoder.scale, width // preset.autoencoder.scale)
    latents = ("z", "x0", "x0_ikr", "x0_ckg", "eps_ikr", "eps_ckg")
    image = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=generator)
    values = {
        name: torch.randn(1, preset.autoencoder.latent_channels, *size, generator=generator)
        for name in latents
    }
    values["image"] = values["visible"] = image
    values["noise"] = torch.randn(1, preset.autoencoder.noise_channels, *size, generator=generator)
    encoder = EncoderGraph(model)
    with torch.no_grad():
        features = encoder(*(values[name] for name in encoder.inputs))
    return {
        **values,
        **dict(zip(encoder.outputs, features, strict=True)),
        "z_seg": torch.randn(1, len(preset.classes), *size, generator=generator),
        "t": torch.tensor([499.0]),
        "abar_t": torch.tensor([0.3]),
        "abar_next": torch.tensor([0.9]),
        "tau": torch.tensor([preset.tau]),
    }
