"""A half body with float32 normalisation: how GPU engines get FP16.

TensorRT builds strongly typed networks: precision is in the ONNX, not in a flag. Convolutions,
linear layers and attention run in float16; normalisations (which overflow or lose their variance
there), the DDIM arithmetic and every graph's inputs and outputs stay float32.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from magicfuse_training.networks.model import MagicFuse

_HALF = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)
NETWORKS = ("encoder", "ikr", "ckg", "mkf", "segmentation", "decoder")


def half_body(model: MagicFuse) -> MagicFuse:
    """Return a copy whose layers compute in float16, with float32 norms, inputs and outputs."""
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        if isinstance(layer, _HALF):
            layer.half()
            layer.register_forward_pre_hook(_inputs_to(torch.float16))
        elif isinstance(layer, _NORMS):
            layer.register_forward_pre_hook(_inputs_to(torch.float32))
            layer.register_forward_hook(_output_to(torch.float16))
    for name in NETWORKS:
        model.get_submodule(name).register_forward_hook(_output_to(torch.float32))
    return model


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, tuple):
        return tuple(_cast(v, dtype) for v in value)
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _inputs_to(dtype: torch.dtype) -> Any:
    return lambda _, inputs: _cast(inputs, dtype)


def _output_to(dtype: torch.dtype) -> Any:
    return lambda _, __, output: _cast(output, dtype)
