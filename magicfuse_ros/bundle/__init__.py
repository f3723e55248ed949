# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A bundle: the networks of a trained model as ONNX files, and a `bundle.json` that describes them.

A bundle that fails verification is rejected with the reason; nothing is guessed. A bundle may come
from anywhere: every number has a limit, and a network's weights must be in the file whose hash is
recorded.

A network may have a second file, `int8`, with the same inputs and outputs and with its quantised
layers between QuantizeLinear and DequantizeLinear. Weights are int8, symmetric, with one scale per
output channel; activations are uint8 with one scale and zero point per tensor. Either every network
has such a file or none has; `quantization` says how they were made and what accuracy they cost.

All random values of a frame are standard normal. They are drawn once from numpy's
`default_rng(seed)`, in this order: z_T, the shared start of the three streams; z_seg at the first
step, if `z_seg_start` is "normal"; the encoder's input `noise`, if its graph has one. So a video
does not flicker.

The decoder's image of the thermal stream holds the thermal estimate: in its luma or, if the bundle
has `thermal_uncertainty`, in its red channel, with the certainty of the estimate in the blue one.
"""

from magicfuse_ros.bundle.bundle import Bundle, sha256, write_manifest
from magicfuse_ros.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    NETWORKS,
    UNLABELED,
    Manifest,
    NetworkName,
    NetworkSpec,
    Provenance,
    Quantization,
    QuantizedGraph,
    SemanticClass,
    TensorSpec,
    ThermalUncertainty,
    ZSegStart,
)

__all__ = [
    "FORMAT_VERSION", "MANIFEST", "NETWORKS", "UNLABELED", "Bundle", "Manifest", "NetworkName",
    "NetworkSpec", "Provenance", "Quantization", "QuantizedGraph", "SemanticClass", "TensorSpec",
    "ThermalUncertainty", "ZSegStart", "sha256", "write_manifest",
]  # fmt: skip
