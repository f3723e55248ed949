# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Quantisation of small bundles, and the guard."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from dataset_files import picture
from onnx import TensorProto, helper, numpy_helper

from cli_run import train
from magicfuse_ros.backends import select
from magicfuse_ros.bundle import MANIFEST, NETWORKS, Bundle, NetworkSpec, TensorSpec
from magicfuse_ros.fuser import Fuser
from magicfuse_training.data.files import read_image
from magicfuse_training.errors import ExportError
from magicfuse_training.quantization.guard import QuantizedNetwork, _to_float32, guarded
from magicfuse_training.quantization.losses import Int8Loss, check_losses
from magicfuse_training.quantization.networks import folded, layers, multiply_adds
from magicfuse_training.quantization.networks import quantize as quantize_network

pytestmark = pytest.mark.skipif(find_spec("nncf") is None, reason="quantisation needs nncf")


def write_data(root: Path) -> None:
    """Write a few scenes of the repacked sets: smooth shapes, dark by night."""
    rng = np.random.default_rng(0)
    for name, split in (("camvid", "train"), ("camvid", "val"), ("msrs", "train"), ("msrs", "dev")):
        for i in range(6 if split == "train" else 2):
            scene = cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (96, 64))
            stem, light = (f"{i}N", 6) if name == "msrs" else (f"{i}", 1)
            picture(root / name / split / "vi" / f"{stem}.jpg", scene // light)
            label = rng.integers(0, 3, (64, 96), np.uint8)
            picture(root / name / split / "label" / f"{stem}.png", label)


@pytest.fixture
def given(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders of a bundle and of data, with labels in the bundle's three ids."""
    write_data(tmp_path / "data")

    def own_label(root: Path, split: str, stem: str, names: list[str]) -> np.ndarray:
        return read_image(root / split / "label" / f"{stem}.png", gray=True)

    monkeypatch.setattr("magicfuse_training.quantization.losses.camvid_label", own_label)
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")), tmp_path / "data"


def test_a_bundle_gets_int8_graphs_beside_those_it_has(
    given: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, data = given
    # Masks from random weights depend on tiny differences.
    monkeypatch.setattr("magicfuse_training.quantization.losses.AGREEMENT_PERCENT", 0.0)
    monkeypatch.setattr("magicfuse_training.quantization.losses.MIOU_LOSS", 100.0)
    (bundle / "MODEL_CARD.md").write_text("card")
    folders = ("--bundle", bundle, "--data", data, "--out", tmp_path / "out")
    code, output = train("quantize", *folders, "--minimum-db", 25)
    assert code == 0, output
    assert "restored PSNR" in output and "encoder: " in output
    made, old = Bundle.load(tmp_path / "out"), Bundle.load(bundle)
    assert (tmp_path / "out" / "MODEL_CARD.md").read_text() == "card"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        MANIFEST, "MODEL_CARD.md", *(f"{n}{s}.onnx" for n in NETWORKS for s in ("", ".int8")),
    }  # fmt: skip
    quantization = made.manifest.quantization
    assert quantization is not None and quantization.tool.startswith("nncf ")
    conditions = {"CamVid val, clean", "CamVid val, dark", "CamVid val, haze", "MSRS dev"}
    assert {w.partition(", ")[2] for w in quantization.losses} == conditions
    assert any("1N" in frame or "0N" in frame for frame in quantization.calibration)
    for name in NETWORKS:
        assert made.manifest.networks[name].sha256 == old.manifest.networks[name].sha256
        graph = made.manifest.networks[name].int8
        assert graph is not None
        assert graph.layers == (1 if name in ("encoder", "mkf", "decoder") else 0)
        model = onnx.load(made.root / graph.file)
        int8 = [t for t in model.graph.initializer if t.data_type == TensorProto.INT8 and t.dims]
        assert bool(int8) == bool(graph.layers)
        zero_points = {n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"}
        types = {t.data_type for t in model.graph.initializer if t.name in zero_points}
        assert types <= {TensorProto.UINT8}  # OpenVINO computes int8 wrongly
        for tensor in int8:  # no 16-bit sum overflows on a CPU without VNNI
            if len(tensor.dims) == 4:
                assert np.abs(numpy_helper.to_array(tensor)).max() <= 64
    image = cv2.imread(str(data / "camvid" / "val" / "vi" / "0.jpg"))
    frames = [
        Fuser(made, select(backend, precision=precision))(image).restored
        for backend, precision in (
            ("openvino", "fp32"),
            ("openvino", "int8"),
            ("onnxruntime", "int8"),
        )
    ]
    exact, openvino, onnxruntime = (np.asarray(frame, np.int16) for frame in frames)
    assert 0 < np.abs(exact - openvino).mean() < 6
    assert np.abs(openvino - onnxruntime).mean() < 0.5


def test_limits_that_are_missed_leave_the_bundle_as_it_was(
    given: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, data = given
    before = {p.name: p.read_bytes() for p in bundle.iterdir()}

    def unchanged(path: Path, *_: object) -> QuantizedNetwork:
        return QuantizedNetwork(folded(path), [], [], 99.0)

    monkeypatch.setattr("magicfuse_training.quantization.bundle.guarded", unchanged)
    monkeypatch.setattr("magicfuse_training.quantization.losses.AGREEMENT_PERCENT", 100.5)
    code, output = train("quantize", "--bundle", bundle, "--data", data, "--minimum-db", "10")
    assert code == 2
    assert "K = 1, CamVid val, clean: mask agreement is" in output
    assert "expected at least 100.5" in output and "--minimum-db is 10" in output
    assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agreement_percent": 97.9}, "K = 1: mask agreement is 97.90 %, expected at least 98"),
        ({"psnr_loss_db": 0.31}, r"K = 1: restored PSNR falls by 0.31 dB, expected at most 0.3"),
        ({"miou_loss": 0.6}, "K = 1: mIoU falls by 0.60, expected at most 0.5"),
    ],
)
def test_each_limit(change: dict[str, float], message: str) -> None:
    good = {"agreement_percent": 98.1, "psnr_loss_db": 0.29, "miou_loss": 0.4}
    rest = {"frames": 1, "restored_db": 40.0, "mag_image_db": 40.0, "thermal_db": 40.0}
    check_losses({"K = 1": Int8Loss(**good, **rest)}, 25)  # type: ignore[arg-type]
    unknown = {"psnr_loss_db": None, "miou_loss": None}
    check_losses({"K = 1": Int8Loss(**{**good, **unknown}, **rest)}, 25)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=message):
        check_losses({"K = 1": Int8Loss(**{**good, **change}, **rest)}, 25)  # type: ignore[arg-type]


def two_layers(path: Path, spread: float = 1, difference: float = 1) -> NetworkSpec:
    """Write two convolutions; the channels between them differ in size by a factor `spread`.

    The second layer evens that out, so that in int8 the small channels are lost. With a small
    `difference`, it subtracts nearly equal values, which int8 makes equal.
    """
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1, spread, 8).astype(np.float32)
    first = rng.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32) * sizes[:, None, None, None]
    second = rng.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32) / sizes[:, None, None]
    first[4:] = first[:4] + difference * first[4:]
    second[:, 4:] = -second[:, :4] + difference * second[:, 4:]
    tensors = [TensorSpec(name=n, dtype="float32", shape=(1, 8, 16, 16)) for n in ("in", "out")]
    nodes = [
        helper.make_node("Conv", ["in", "w1"], ["middle"], name="first", pads=[1] * 4),
        helper.make_node("Conv", ["middle", "w2"], ["out"], name="second", pads=[1] * 4),
    ]
    values = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in tensors]
    weights = [numpy_helper.from_array(w, n) for w, n in ((first, "w1"), (second, "w2"))]
    graph = helper.make_graph(nodes, "layers", values[:1], values[1:], weights)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return NetworkSpec(
        file=path.name, sha256="0" * 64, inputs=tuple(tensors[:1]), outputs=tuple(tensors[1:]),
        parameters=0, gflop=0,
    )  # fmt: skip


def test_the_guard_keeps_a_layer_in_float32_that_int8_costs_too_much(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    calls = [{"in": rng.normal(0, 1, (1, 8, 16, 16)).astype(np.float32)} for _ in range(6)]
    path = tmp_path / "layers.onnx"
    for spread in (1, 100):  # evened out
        spec = two_layers(path, spread=spread)
        result = guarded(path, spec, calls[:4], calls[4:], minimum_db=25)
        assert (result.layers, result.float32_layers) == (["first", "second"], [])
        assert result.decibels >= 25
    spec = two_layers(path, difference=0.01)
    result = guarded(path, spec, calls[:4], calls[4:], minimum_db=25)
    assert "second" in result.float32_layers and result.decibels >= 25
    result = guarded(path, spec, calls[:4], calls[4:], minimum_db=200)
    assert result.layers == [] and result.decibels >= 100


def test_layers_return_to_float32_where_that_costs_least_time(tmp_path: Path) -> None:
    alone = {"large": {"a": 3e-4}, "small": {"a": 2e-4}, "noisy": {"a": 9e-3}, "tiny": {"a": 1e-5}}
    work = {"large": 300, "small": 10, "noisy": 100, "tiny": 1}
    assert _to_float32(alone, work, minimum_db=35.4) == ["noisy", "large"], "no others are needed"
    assert _to_float32(alone, work, minimum_db=35) == ["noisy", "small"]
    assert _to_float32(alone, work, minimum_db=32) == ["noisy"]
    assert _to_float32(alone, work, minimum_db=200) == ["noisy", "large", "small", "tiny"]
    two_layers(tmp_path / "layers.onnx")
    assert multiply_adds(folded(tmp_path / "layers.onnx")) == {
        "first": 8 * 8 * 3 * 3 * 16 * 16, "second": 8 * 8 * 3 * 3 * 16 * 16,
    }  # fmt: skip


def test_data_without_frames_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    code, output = train("quantize", "--bundle", tiny_bundle, "--data", tmp_path)
    assert code == 2 and "camvid/train/vi' holds no *.jpg" in output


def test_a_layer_that_sees_no_more_than_the_start_of_sampling_stays_float32() -> None:
    rng, shape = np.random.default_rng(0), (1, 4, 12, 16)
    nodes = [
        helper.make_node("Mul", ["z", "z"], ["squared"], name="mul"),
        helper.make_node("Conv", ["squared", "w"], ["b"], name="start", pads=[1] * 4),
        helper.make_node("Conv", ["x", "w"], ["a"], name="image", pads=[1] * 4),
        helper.make_node("Add", ["a", "b"], ["out"], name="add"),
    ]
    weight = numpy_helper.from_array(rng.normal(0, 1, (4, 4, 3, 3)).astype(np.float32), "w")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "z", "out")]
    graph = helper.make_graph(nodes, "layers", values[:2], values[2:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    assert layers(model) == ["image"]
    calls = [{n: rng.normal(0, 1, shape).astype(np.float32) for n in ("x", "z")} for _ in range(2)]
    quantized = quantize_network(model, calls)
    made_by = {n.output[0]: n for n in quantized.graph.node}
    kinds = {
        n.name: made_by[n.input[0]].op_type for n in quantized.graph.node if n.op_type == "Conv"
    }
    assert kinds == {"image": "DequantizeLinear", "start": "Mul"}
