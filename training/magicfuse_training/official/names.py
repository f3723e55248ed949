# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The name map: which published tensors make up each of our tensors.

A map goes from one of our modules to the published modules whose weights, joined along the first
axis, form its weights: our attention has one layer for queries, keys and values, the release has
three. Only names and shapes of the release (state dicts) are known here, none of its code.
"""

from __future__ import annotations

from collections.abc import Mapping

from magicfuse_training.networks.autoencoder import AutoencoderConfig
from magicfuse_training.networks.fusion import FusionConfig
from magicfuse_training.networks.unet import UNetConfig

Modules = dict[str, tuple[str, ...]]

_UNET_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
_INNER = "transformer_blocks.0"
_TRANSFORMER: dict[str, str | tuple[str, ...]] = {
    "norm": "norm",
    "inlet": "proj_in",
    "norm1": f"{_INNER}.norm1",
    "attention1.qkv": tuple(f"{_INNER}.attn1.to_{part}" for part in "qkv"),
    "attention1.out": f"{_INNER}.attn1.to_out.0",
    "norm2": f"{_INNER}.norm2",
    "attention2.qkv": tuple(f"{_INNER}.attn2.to_{part}" for part in "qkv"),
    "attention2.out": f"{_INNER}.attn2.to_out.0",
    "norm3": f"{_INNER}.norm3",
    "widen": f"{_INNER}.ff.net.0.proj",
    "narrow": f"{_INNER}.ff.net.2",
    "outlet": "proj_out",
}
_TIME = {"time.layers.0": "time_embed.0", "time.layers.2": "time_embed.2"}
_FUSION_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
}
_FUSION_LAYER: dict[str, str | tuple[str, ...]] = {
    **{f"blocks.{i}.{k}": f"res{i + 1}.{v}" for i in range(2) for k, v in _FUSION_BLOCK.items()},
    "mlp.0": "mlp.0",
    "mlp.2": "mlp.2",
    "attention.norm": "att.norm",
    "attention.qkv": ("att.q", "att.k", "att.v"),
    "attention.out": "att.proj_out",
}


def _below(ours: str, theirs: str, table: Mapping[str, str | tuple[str, ...]]) -> Modules:
    """Return a table with a prefix on either side."""
    result: Modules = {}
    for name, source in table.items():
        sources = (source,) if isinstance(source, str) else source
        result[f"{ours}{name}"] = tuple(f"{theirs}{s}" for s in sources)
    return result


def autoencoder_modules(config: AutoencoderConfig) -> Modules:
    """Map `encoder` and `decoder`; one file holds both, under these names."""

    def groups(ours: str, theirs: str, count: int, first: int = 0) -> Modules:
        result: Modules = {}
        for i in range(count):
            block = {"conv1": "blocks.0.0", "conv2": "blocks.1.0"}
            result |= _below(f"{ours}.{first + i}.", f"{theirs}.{i}.", block)
        return result

    n, m = config.encoder_blocks, config.decoder_blocks
    encoder = {
        "stem.0.0": "imgconv.0",
        f"stem.{n + 1}.0": "downsample1.0",
        "down.0": "downsample2.0",
        "merge.0": "noiseconv.0",
        "latent": "out.0",
    }
    decoder = {
        "inlet.0": "input.0",
        "fine1": "upsample1.1",
        "half1": "upsample2.1",
        f"half2.{m}": "deconv.0",
    }
    return {
        **_below("encoder.", "encoder.", encoder),
        **groups("encoder.stem", "encoder.resnet1", n, first=1),
        **groups("encoder.fine", "encoder.resnet2", n),
        **groups("encoder.coarse", "encoder.resnet3", n),
        **_below("decoder.", "decoder.", decoder),
        **groups("decoder.coarse", "decoder.resnet1", m),
        **groups("decoder.fine2", "decoder.resnet2", m),
        **groups("decoder.half2", "decoder.resnet3", m),
    }


def unet_modules(config: UNetConfig, name: str) -> Modules:
    """Map `ikr` or `ckg` (`name`).

    The published modules are numbered consecutively. `input_blocks` 0 is the first convolution;
    then come each level's blocks, with a strided convolution between levels. `output_blocks` works
    likewise. Within a block, 0 is the residual block, followed by an attention if there is one,
    then by the convolution after enlarging.
    """
    levels = len(config.widths)
    edges = {"inlet": "input_blocks.0.0", "norm": "out.0", "outlet": "out.2"}
    result = _below(f"{name}.", "", {**_TIME, **edges})

    def block(ours: str, attention: str, theirs: str, attends: bool) -> None:
        result.update(_below(f"{name}.{ours}.", f"{theirs}.0.", _UNET_BLOCK))
        if attends:
            result.update(_below(f"{name}.{attention}.", f"{theirs}.1.", _TRANSFORMER))

    for level in range(levels):
        attends = config.attention[level]
        first = level * (config.blocks + 1)
        if level:
            result[f"{name}.shrink.{level - 1}"] = (f"input_blocks.{first}.0.op",)
        for i in range(config.blocks):
            theirs = f"input_blocks.{first + 1 + i}"
            block(f"down.{level}.{i}", f"down_attention.{level}.{i}", theirs, attends)

        up = levels - 1 - level  # both ours and theirs go up from the coarsest level
        for i in range(config.up_blocks):
            theirs = f"output_blocks.{up * config.up_blocks + i}"
            block(f"up.{up}.{i}", f"up_attention.{up}.{i}", theirs, attends)
        if level:
            result[f"{name}.enlarge.{up}"] = (f"{theirs}.{2 if attends else 1}.conv",)
    for ours, theirs in (("middle1", "middle_block.0"), ("middle2", "middle_block.2")):
        result |= _below(f"{name}.{ours}.", f"{theirs}.", _UNET_BLOCK)
    return result | _below(f"{name}.attention.", "middle_block.1.", _TRANSFORMER)


def fusion_modules(config: FusionConfig) -> Modules:
    """Map `mkf`."""
    edges = {
        "inlet": "inconv.0",
        "normout": "normout",
        "estimate.0": "estimate.0",
        "estimate.1": "estimate.1",
    }
    result = _below("mkf.", "", {**_TIME, **edges})
    for i in range(len(config.widths)):
        result |= _below(f"mkf.layers.{i}.", f"blocks.{i}.", _FUSION_LAYER)
        for j in (2 * i, 2 * i + 1):
            result[f"mkf.segproj.{j}"] = (f"segproj.{j}",)
    return result
