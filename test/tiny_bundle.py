# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A small bundle of real ONNX graphs for tests; test_sampler.py recomputes its results.

Image 64 x 96, latent 4 x 8 x 12, three classes, K = 1 and 2, v-prediction. The decoder and the
segmentation head take the encoder's `detail`, so that the wiring by name is tested. The channels of
the decoder's images differ, so that the thermal stream's image can also be read with UNCERTAINTY.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from magicfuse_ros.bundle import (
    FORMAT_VERSION,
    NETWORKS,
    Bundle,
    Manifest,
    NetworkName,
    NetworkSpec,
    Provenance,
    Quantization,
    QuantizedGraph,
    SemanticClass,
    TensorSpec,
    ThermalUncertainty,
    sha256,
    write_manifest,
)
from magicfuse_ros.bundle.schedule import Schedule

HEIGHT, WIDTH, SCALE, CHANNELS = 64, 96, 8, 4
SCHEDULE = Schedule(train_steps=1000, prediction="v")
GRIDS = {k: SCHEDULE.trailing_timesteps(k) for k in (1, 2)}
CLASSES = [
    SemanticClass(id=0, name="road", color=(128, 64, 128), thermal=False, drivable=True),
    SemanticClass(id=1, name="person", color=(220, 20, 60), thermal=True, drivable=False),
    SemanticClass(id=2, name="sky", color=(70, 130, 180), thermal=False, drivable=False),
]
UNCERTAINTY = ThermalUncertainty(lowest=0.01, highest=1.0)
LATENT = (1, CHANNELS, HEIGHT // SCALE, WIDTH // SCALE)
SCORES = (1, len(CLASSES), *LATENT[2:])
# Weights of the branches' velocity: (condition, z, t / 1000)
BRANCHES: dict[NetworkName, tuple[float, float, float]] = {
    "ikr": (-0.8, 0.3, 0.05),
    "ckg": (0.6, -0.2, 0.1),
}

_random = np.random.default_rng(7)
ENCODE = _random.normal(0, 1, (CHANNELS, 3, 1, 1)).astype(np.float32)
CLASSIFY = _random.normal(0, 1, (len(CLASSES), CHANNELS, 1, 1)).astype(np.float32)
DECODE = _random.normal(0, 0.2, (3, CHANNELS, 1, 1)).astype(np.float32)

_SHAPES: dict[str, tuple[int, ...]] = {
    "image": (1, HEIGHT, WIDTH, 3),
    "mask": (1, HEIGHT, WIDTH),
    "confidence": (1, HEIGHT, WIDTH),
    "detail": (1, 3, HEIGHT // 2, WIDTH // 2),
    "z_seg": SCORES,
    "z_seg_next": SCORES,
    **dict.fromkeys(("t", "abar_t", "abar_next", "tau"), (1,)),
}
_UINT8 = ("image", "mask", "confidence")
_STEP = ("t", "abar_t", "abar_next")


class _Graph:
    """Collects nodes; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        result = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    def const(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def pool(self, x: str, size: int, out: str = "") -> str:
        return self.op("AveragePool", x, out=out, kernel_shape=[size] * 2, strides=[size] * 2)

    def enlarge(self, x: str, factor: int) -> str:
        scales = self.const([1, 1, factor, factor])
        options = {"mode": "nearest", "nearest_mode": "floor"}
        how = {"coordinate_transformation_mode": "asymmetric"}
        return self.op("Resize", x, "", scales, **options, **how)

    def root(self, x: str) -> tuple[str, str]:
        """Return sqrt(x), sqrt(1 - x)."""
        return self.op("Sqrt", x), self.op("Sqrt", self.op("Sub", self.const([1]), x))

    def mix(self, a: str, x: str, b: str, y: str, out: str = "", sign: str = "Add") -> str:
        """Return a x + b y, or a x - b y."""
        return self.op(sign, self.op("Mul", a, x), self.op("Mul", b, y), out=out)

    def to_uint8(self, x: str, out: str = "") -> str:
        """Return 0..1 as uint8 0..255."""
        clipped = self.op("Clip", x, self.const(0), self.const(1))
        scaled = self.op("Round", self.op("Mul", clipped, self.const(255)))
        return self.op("Cast", scaled, out=out, to=TensorProto.UINT8)


def _encoder(g: _Graph) -> None:
    pixels = g.op("Cast", "image", to=TensorProto.FLOAT)
    planes = g.op("Transpose", g.op("Div", pixels, g.const(255)), perm=[0, 3, 1, 2])
    g.pool(planes, 2, out="detail")
    g.op("Conv", g.pool(planes, SCALE), g.const(ENCODE), out="condition")


def _branch(g: _Graph, weights: tuple[float, float, float]) -> None:
    a, b, c = (g.const(w) for w in weights)
    signal, noise = g.root("abar_t")
    time = g.op("Mul", c, g.op("Div", "t", g.const(1000)))
    v = g.op("Add", g.mix(a, "condition", b, "z"), time)
    g.mix(signal, "z", noise, v, out="x0", sign="Sub")
    g.mix(noise, "z", signal, v, out="eps")
    next_signal, next_noise = g.root("abar_next")
    g.mix(next_signal, "x0", next_noise, "eps", out="z_next")


def _mkf(g: _Graph) -> None:
    w = g.op("Min", g.op("Sigmoid", g.op("Sub", "z", "x0_ikr")), "tau", out="w")
    rest = g.op("Sub", g.const(1), w)
    g.mix(w, "x0_ikr", rest, "x0_ckg", out="x0")
    next_signal, next_noise = g.root("abar_next")
    g.mix(next_signal, "x0", next_noise, g.mix(w, "eps_ikr", rest, "eps_ckg"), out="z_next")
    g.op("Conv", "x0", g.const(CLASSIFY), out="scores")
    g.mix(g.const(0.5), "z_seg", g.const(1), "scores", out="z_seg_next")


def _segmentation(g: _Graph) -> None:
    scores = g.op("Add", g.enlarge("z_seg", SCALE), g.enlarge("detail", 2))
    classes = g.op("ArgMax", scores, axis=1, keepdims=0)
    g.op("Cast", classes, out="mask", to=TensorProto.UINT8)
    best = g.op("ReduceMax", g.op("Softmax", scores, axis=1), axes=[1], keepdims=0)
    g.to_uint8(best, out="confidence")


def _decoder(g: _Graph) -> None:
    coarse = g.enlarge(g.op("Conv", "x0", g.const(DECODE)), SCALE)
    planes = g.op("Add", coarse, g.enlarge("detail", 2))
    g.to_uint8(g.op("Transpose", planes, perm=[0, 2, 3, 1]), out="image")


def _spec(name: str) -> TensorSpec:
    dtype = "uint8" if name in _UINT8 else "float32"
    return TensorSpec.model_validate(
        {"name": name, "dtype": dtype, "shape": _SHAPES.get(name, LATENT)}
    )


def _save(g: _Graph, path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> None:
    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    values = [
        [helper.make_tensor_value_info(s.name, types[s.dtype], s.shape) for s in specs]
        for specs in (inputs, outputs)
    ]
    graph = helper.make_graph(g.nodes, path.stem, *values, g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def build(root: Path, thermal_uncertainty: ThermalUncertainty | None = None) -> Path:
    """Write the bundle into a new folder and return the folder."""
    root.mkdir(parents=True)
    step_in, step_out = ("condition", "z", *_STEP), ("eps", "x0", "z_next")
    streams = ("x0_ikr", "x0_ckg", "z", "eps_ikr", "eps_ckg", "z_seg", *_STEP, "tau")
    tensors: dict[NetworkName, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "encoder": (("image",), ("condition", "detail")),
        "ikr": (step_in, step_out),
        "ckg": (step_in, step_out),
        "mkf": (streams, ("x0", "z_next", "z_seg_next", "w")),
        "segmentation": (("z_seg", "detail"), ("mask", "confidence")),
        "decoder": (("x0", "detail"), ("image",)),
    }
    networks: dict[NetworkName, NetworkSpec] = {}
    for number, (name, (ins, outs)) in enumerate(tensors.items(), start=1):
        g = _Graph()
        if name in BRANCHES:
            _branch(g, BRANCHES[name])
        else:
            writers = {"encoder": _encoder, "mkf": _mkf}
            writers |= {"segmentation": _segmentation, "decoder": _decoder}
            writers[name](g)
        path = root / f"{name}.onnx"
        # mkf uses neither t nor abar_t; onnx and both runtimes keep unused inputs
        inputs, outputs = tuple(map(_spec, ins)), tuple(map(_spec, outs))
        _save(g, path, list(inputs), list(outputs))
        networks[name] = NetworkSpec(
            file=path.name,
            sha256=sha256(path),
            inputs=inputs,
            outputs=outputs,
            parameters=10 * number,
            gflop=number / 1000,
        )
    write_manifest(
        root,
        Manifest(
            format_version=FORMAT_VERSION,
            name="tiny",
            preset="tiny",
            height=HEIGHT,
            width=WIDTH,
            latent_channels=CHANNELS,
            latent_scale=SCALE,
            schedule=SCHEDULE,
            step_grids=GRIDS,
            default_steps=2,
            classes=CLASSES,
            tau=0.4,
            seed=3,
            precision="float32",
            thermal_uncertainty=thermal_uncertainty,
            networks=networks,
            provenance=Provenance(
                data=["none"],
                weights_license="Apache-2.0",
                commit="0" * 40,
                created="2026-01-01",
                scores={"restored": {"psnr": 12.345678}, "note": "made by a test"},
            ),
        ),
    )
    return root


class _Inputs:
    """Return a few random inputs of a network, one set per call."""

    def __init__(self, spec: NetworkSpec) -> None:
        random = np.random.default_rng(1)
        self._left = [
            {
                t.name: random.integers(0, 256, t.shape, np.uint8)
                if t.dtype == "uint8"
                else random.random(t.shape, np.float32) * 2 - 1
                for t in spec.inputs
                if t.name not in ("t", "abar_t", "abar_next", "tau")
            }
            | {t.name: np.full(1, 0.5, np.float32) for t in spec.inputs if t.shape == (1,)}
            for _ in range(4)
        ]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


def add_int8(root: Path) -> Path:
    """Add int8 graphs to the bundle in a folder, and return the folder."""
    from onnxruntime import quantization

    manifest = Bundle.load(root).manifest
    specs: dict[NetworkName, NetworkSpec] = {}
    for name in NETWORKS:
        spec = manifest.networks[name]
        path = root / f"{name}.int8.onnx"
        quantization.quantize_static(
            root / spec.file,
            path,
            _Inputs(spec),
            per_channel=True,
            reduce_range=True,  # 16-bit sums of 8-bit weights would overflow on CPUs without VNNI
            op_types_to_quantize=["Conv"],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"QuantizeBias": False},
        )
        graph = QuantizedGraph(file=path.name, sha256=sha256(path), layers=1, float32_layers=())
        specs[name] = spec.model_copy(update={"int8": graph})
    quantization_ = Quantization(tool="onnxruntime", calibration=["random"], losses={})
    changed = {"networks": specs, "quantization": quantization_}
    write_manifest(root, manifest.model_copy(update=changed))
    return root
