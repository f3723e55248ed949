"""The six ONNX graphs of a bundle, as modules whose forward is exactly one graph.

Images enter and leave as uint8 NHWC, and every branch does its own DDIM step, so that no arithmetic
is left between graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magicfuse_training.networks.model import MagicFuse


class EncoderGraph(nn.Module):
    """image uint8 (1, H, W, 3) -> condition, detail_4, detail_2."""

    inputs = ("image",)
    outputs = ("condition", "detail_4", "detail_2")

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the graph."""
        x = image.permute(0, 3, 1, 2).float() / 255
        features: tuple[Tensor, Tensor, Tensor] = self.encoder(x)
        return features


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
    """One DDIM step of mkf."""

    inputs = (
        "x0_ikr",
        "x0_ckg",
        "z",
        "eps_ikr",
        "eps_ckg",
        "z_seg",
        "t",
        "abar_t",
        "abar_next",
        "tau",
    )
    outputs = ("x0", "z_next", "z_seg_next", "w")

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the graph."""
        return self.model.fuse(
            (eps_ikr, x0_ikr), (eps_ckg, x0_ckg), z, z_seg, t, abar_t, abar_next, tau
        )


class SegmentationGraph(nn.Module):
    """z_seg, detail_4 -> mask and confidence, uint8 (1, H, W)."""

    inputs = ("z_seg", "detail_4")
    outputs = ("mask", "confidence")

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
        self.head = model.segmentation

    def forward(self, z_seg: Tensor, detail_4: Tensor) -> tuple[Tensor, Tensor]:
        """Run the graph. Decided at 1/2: 11 scores a pixel cost a CPU more than the network."""
        logits = self.head(z_seg, detail_4)
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        best, mask = logits.max(dim=1, keepdim=True)
        confidence = 255 / (logits - best).exp().sum(dim=1, keepdim=True)
        both = torch.cat([mask.float(), confidence.round()], dim=1)
        both = F.interpolate(both, scale_factor=2, mode="nearest").to(torch.uint8)
        return both[:, 0], both[:, 1]


class DecoderGraph(nn.Module):
    """x0, detail_4, detail_2 -> image uint8 (1, H, W, 3)."""

    inputs = ("x0", "detail_4", "detail_2")
    outputs = ("image",)

    def __init__(self, model: MagicFuse) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, x0: Tensor, detail_4: Tensor, detail_2: Tensor) -> Tensor:
        """Run the graph."""
        image = self.decoder(x0, detail_4, detail_2)
        pixels: Tensor = (image.clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1)


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


def example_inputs(model: MagicFuse, height: int, width: int, seed: int = 0) -> dict[str, Tensor]:
    """Return one tensor for every input name that a graph can have, at an image size."""
    preset = model.preset
    generator = torch.Generator().manual_seed(seed)
    size = (height // 8, width // 8)
    latents = ("z", "x0", "x0_ikr", "x0_ckg", "eps_ikr", "eps_ckg")
    image = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        condition, detail_4, detail_2 = EncoderGraph(model)(image)
    values = {
        name: torch.randn(1, preset.autoencoder.latent_channels, *size, generator=generator)
        for name in latents
    }
    return values | {
        "image": image,
        "condition": condition,
        "detail_4": detail_4,
        "detail_2": detail_2,
        "z_seg": torch.randn(1, len(preset.classes), *size, generator=generator),
        "t": torch.tensor([499.0]),
        "abar_t": torch.tensor([0.3]),
        "abar_next": torch.tensor([0.9]),
        "tau": torch.tensor([preset.tau]),
    }
