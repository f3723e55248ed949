"""What the networks of a preset cost: parameters and GFLOP of one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from magicfuse_training.networks.model import MagicFuse


def parameters(module: nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def gflop_per_call(model: MagicFuse) -> dict[str, float]:
    """Return 2 x multiply-adds / 1e9 of one call of every network at the preset's image size."""
    preset = model.preset
    h, w = preset.height // 8, preset.width // 8
    z = torch.zeros(1, preset.autoencoder.latent_channels, h, w)
    z_seg, t = torch.zeros(1, len(preset.classes), h, w), torch.zeros(1)
    condition, detail_4, detail_2 = model.encoder(torch.zeros(1, 3, preset.height, preset.width))
    calls: dict[str, Callable[[], object]] = {
        "encoder": lambda: model.encoder(torch.zeros(1, 3, preset.height, preset.width)),
        "ikr": lambda: model.ikr(condition, z, t),
        "ckg": lambda: model.ckg(condition, z, t),
        "mkf": lambda: model.mkf(z, z, z, torch.cat([z, z], 1), z_seg, t),
        "segmentation": lambda: model.segmentation(z_seg, detail_4),
        "decoder": lambda: model.decoder(z, detail_4, detail_2),
    }
    costs = {}
    for name, call in calls.items():
        with FlopCounterMode(display=False) as counter:
            call()
        costs[name] = counter.get_total_flops() / 1e9
    return costs
