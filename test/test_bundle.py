# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from magicfuse_ros.bundle import MANIFEST, NETWORKS, Bundle, default
from magicfuse_ros.errors import BundleError


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((root / MANIFEST).read_text())
    change(manifest)
    (root / MANIFEST).write_text(json.dumps(manifest))


def uncertain(lowest: float, highest: float) -> Callable[[dict[str, Any]], object]:
    return lambda m: m.update(thermal_uncertainty={"lowest": lowest, "highest": highest})


def _first_shape(shape: list[int]) -> Callable[[dict[str, Any]], object]:
    return lambda m: m["networks"]["encoder"]["inputs"][0].update(shape=shape)


def _nested(depth: int) -> Any:
    return {"x": _nested(depth - 1)} if depth else 1


def test_loads_and_reads_back_what_was_written(tiny_bundle: Path) -> None:
    bundle = Bundle.load(str(tiny_bundle))
    assert bundle.manifest.name == "tiny"
    assert [c.name for c in bundle.manifest.classes] == ["road", "person", "sky"]
    assert all(bundle.path(name).is_file() for name in NETWORKS)
    assert [step.t for step in bundle.steps(2)] == [999, 499]


def test_bundles_from_before_z_seg_start_start_from_zeros(copied: Path) -> None:
    edit(copied, lambda m: m.pop("z_seg_start"))
    assert Bundle.load(copied).manifest.z_seg_start == "zeros"


def test_bundles_from_before_thermal_uncertainty_have_none(
    copied: Path, tiny_uncertain_bundle: Path
) -> None:
    edit(copied, lambda m: m.pop("thermal_uncertainty"))
    assert Bundle.load(copied).manifest.thermal_uncertainty is None
    found = Bundle.load(tiny_uncertain_bundle).manifest.thermal_uncertainty
    assert found is not None and (found.lowest, found.highest) == (0.01, 1.0)


def test_fingerprint_follows_the_networks_only(copied: Path) -> None:
    before = Bundle.load(copied).fingerprint
    edit(copied, lambda m: m.update(tau=0.1))
    assert Bundle.load(copied).fingerprint == before
    decoder, encoder = copied / "decoder.onnx", copied / "encoder.onnx"
    decoder.write_bytes(encoder.read_bytes())
    edit(
        copied,
        lambda m: m["networks"]["decoder"].update(sha256=m["networks"]["encoder"]["sha256"]),
    )
    assert Bundle.load(copied).fingerprint != before


def test_untrained_steps_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"steps is 3; bundle 'tiny' is trained for \[1, 2\]"):
        Bundle.load(tiny_bundle).steps(3)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none' is not a folder"):
        Bundle.load(tmp_path / "none")


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read bundle\.json: No such file"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "\udcff"])
def test_manifest_that_is_not_json(copied: Path, text: str) -> None:
    (copied / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_network_file(copied: Path, name: str) -> None:
    (copied / f"{name}.onnx").unlink()
    with pytest.raises(BundleError, match=rf"cannot read {name}\.onnx \({name}\): No such file"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_changed_byte(copied: Path, name: str) -> None:
    path = copied / f"{name}.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name}\.onnx \({name}\) was changed or damaged"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_graphs_are_verified_like_the_others(
    tiny_int8_bundle: Path, tmp_path: Path, name: str
) -> None:
    root = Path(shutil.copytree(tiny_int8_bundle, tmp_path / "bundle"))
    path = root / f"{name}.int8.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{name}\.int8\.onnx \({name}\) was changed or damaged"):
        Bundle.load(root)
    path.unlink()
    with pytest.raises(BundleError, match=rf"cannot read {name}\.int8\.onnx \({name}\): No such"):
        Bundle.load(root)


def test_int8_graphs_take_the_place_of_the_float32_ones(
    tiny_bundle: Path, tiny_int8_bundle: Path
) -> None:
    exact, bundle = Bundle.load(tiny_bundle), Bundle.load(tiny_int8_bundle)
    quantized = bundle.quantized()
    for name in NETWORKS:
        assert bundle.path(name).name == f"{name}.onnx"
        assert quantized.path(name).name == f"{name}.int8.onnx"
        assert quantized.manifest.networks[name].inputs == exact.manifest.networks[name].inputs
    assert len({b.fingerprint for b in (exact, bundle, quantized)}) == 3


def test_a_bundle_without_int8_graphs_says_how_to_make_them(tiny_bundle: Path) -> None:
    with pytest.raises(
        BundleError, match=r"has no int8 graphs; .*magicfuse-train quantize --bundle '.*/tiny'"
    ):
        Bundle.load(tiny_bundle).quantized()


def test_int8_graphs_of_some_networks_only_are_refused(
    tiny_int8_bundle: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tiny_int8_bundle, tmp_path / "bundle"))
    edit(root, lambda m: [m["networks"][n].pop("int8") for n in NETWORKS[1:]])
    with pytest.raises(BundleError, match="only encoder of the networks have int8 graphs"):
        Bundle.load(root)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_format_versions(copied: Path, version: object) -> None:
    edit(copied, lambda m: m.update(format_version=version))
    with pytest.raises(BundleError, match=f"format_version is {version!r}; this release reads 1"):
        Bundle.load(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(surprise=1), "surprise: Extra inputs"),
        (lambda m: m["classes"][0].update(colour="red"), r"classes\.0\.colour: Extra inputs"),
        (lambda m: m.pop("tau"), "tau: Field required"),
        (lambda m: m["networks"].pop("mkf"), "networks lack mkf"),
        (lambda m: m["networks"].update(other=m["networks"]["mkf"]), r"networks\.other"),
        (lambda m: m["networks"]["mkf"].update(file="../mkf.onnx"), r"networks\.mkf\.file"),
        (lambda m: m.update(default_steps=5), r"default_steps is 5; trained are \[1, 2\]"),
        (lambda m: m["classes"].reverse(), "class ids must be 0, 1, 2"),
        (lambda m: m["classes"][0].update(id=255), r"classes\.0\.id"),
        (lambda m: m.update(height=63), "image size 63 is not a multiple of 8"),
        (lambda m: m["step_grids"].update({"2": [999]}), "step grid 2 has 1 time steps"),
        (lambda m: m["step_grids"].update({"2": [1, 9]}), "strictly falling"),
        (lambda m: m.update(tau=1.5), "tau: "),
        (lambda m: m.update(seed=-1), "seed: "),
        (lambda m: m.update(z_seg_start="ones"), "z_seg_start: "),
        (uncertain(0.0, 0.5), r"thermal_uncertainty\.lowest: .*greater than 0"),
        (uncertain(0.1, 1.01), r"thermal_uncertainty\.highest: .*less than or equal to 1"),
        (uncertain(float("nan"), 0.5), r"thermal_uncertainty\.lowest: "),
        (uncertain(0.1, -1.0), r"thermal_uncertainty\.highest: "),
        (uncertain(0.2, 0.2), r"thermal_uncertainty: .*lowest is 0\.2; expected less than highest"),
        (lambda m: m.update(thermal_uncertainty={"lowest": 0.1}), "highest: Field required"),
        (lambda m: m.update(height=10**9), "height: .*less than or equal to 8192"),
        (lambda m: m.update(latent_channels=10**6), "latent_channels: "),
        (lambda m: m.update(height=8192, width=8192, latent_channels=1024), "latent is 1024 x "),
        (lambda m: m["schedule"].update(train_steps=10**12), r"schedule\.train_steps: "),
        (lambda m: m["step_grids"].update({"1001": list(range(1001, 0, -1))}), "step_grids"),
        (lambda m: m.update(seed=2**64), "seed: "),
        (lambda m: m.update(classes=[]), "classes: "),
        (lambda m: m["classes"][1].update(color=[0, 256, 0]), r"classes\.1\.color\.1: "),
        (lambda m: m["classes"][1].update(color=[0, -1, 0]), r"classes\.1\.color\.1: "),
        (lambda m: m["classes"][1].update(name="x" * 10**5), r"classes\.1\.name: "),
        (lambda m: m["classes"][1].update(name="a\x1b[2J"), r"classes\.1\.name: .*printable"),
        (lambda m: m["networks"]["mkf"].update(gflop=float("inf")), r"mkf\.gflop: .*finite"),
        (_first_shape([1, 2**20, 2**20]), "tensor 'image' has the shape .*at most 268435456"),
        (_first_shape([1, -1]), "greater than 0"),
        (_first_shape([1] * 9), "at most 8 items"),
        (lambda m: m["provenance"].update(scores=_nested(40)), "nested more than 32 deep"),
        (lambda m: m["provenance"].update(scores=_nested(900)), "nested more than 32 deep"),
        (lambda m: m["provenance"].update(scores={"x": "\ud800"}), "is not JSON: .*surrogates"),
        (lambda m: m.update(format_version="9" * 10**5), r"format_version is '9+…; this release"),
        (lambda m: m["step_grids"].update({"2": [1] * 10**5}), "step grid 2 has 100000 time steps"),
    ],
)
def test_manifests_that_do_not_hold_together(
    copied: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copied, change)
    with pytest.raises(BundleError, match=message) as error:
        Bundle.load(copied)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "9" * 10**5])
def test_json_that_is_made_to_break_the_parser(copied: Path, text: str) -> None:
    (copied / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.load(copied)


def test_a_manifest_of_megabytes_is_not_read(copied: Path) -> None:
    with (copied / MANIFEST).open("wb") as file:
        file.truncate(2**40)  # a sparse file
    with pytest.raises(BundleError, match="has 1099511627776 bytes; expected at most"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", [MANIFEST, "mkf.onnx"])
def test_a_pipe_is_not_waited_for(copied: Path, name: str) -> None:
    (copied / name).unlink()
    os.mkfifo(copied / name)
    with pytest.raises(BundleError, match="is not a file"):
        Bundle.load(copied)


def _initializer(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(iter(model.graph.initializer))


def _constant(model: onnx.ModelProto) -> onnx.TensorProto:
    tensor = onnx.numpy_helper.from_array(np.ones(3, np.float32), "inside")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))
    return model.graph.node[-1].attribute[0].t


def _branch(model: onnx.ModelProto) -> onnx.TensorProto:
    inner = onnx.helper.make_graph([], "inner", [], [])
    inner.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "inside"))
    node = onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    model.graph.node.append(node)
    return model.graph.node[-1].attribute[1].g.initializer[0]


def _function(model: onnx.ModelProto) -> onnx.TensorProto:
    tensor = onnx.numpy_helper.from_array(np.ones(3, np.float32), "inside")
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    opset = onnx.helper.make_opsetid("", 17)
    model.functions.append(onnx.helper.make_function("own", "f", [], ["c"], [node], [opset]))
    return model.functions[-1].node[0].attribute[0].t


@pytest.mark.parametrize("place", [_initializer, _constant, _branch, _function])
def test_weights_that_no_hash_covers_are_refused(
    copied: Path, place: Callable[[onnx.ModelProto], onnx.TensorProto]
) -> None:
    model = onnx.load(copied / "mkf.onnx")
    tensor = place(model)
    (copied / "w.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "w.bin")
    tensor.ClearField("raw_data")
    data = model.SerializeToString()
    (copied / "mkf.onnx").write_bytes(data)
    edit(copied, lambda m: m["networks"]["mkf"].update(sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(
        BundleError, match=rf"mkf\.onnx \(mkf\) keeps the tensor '{tensor.name}' in another file"
    ):
        Bundle.load(copied)


@pytest.mark.parametrize("data", [b"", b"\x0f", b"\x3a\x7f", b"\xff" * 20, b"no ONNX model"])
def test_what_is_no_onnx_model_is_refused(copied: Path, data: bytes) -> None:
    (copied / "mkf.onnx").write_bytes(data)
    edit(copied, lambda m: m["networks"]["mkf"].update(sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(BundleError, match=r"mkf\.onnx \(mkf\) is not an ONNX model"):
        Bundle.load(copied)


def test_manifest_that_is_a_list(copied: Path) -> None:
    (copied / MANIFEST).write_text("[]")
    with pytest.raises(BundleError, match="format_version is None"):
        Bundle.load(copied)


@pytest.mark.parametrize("place", ["source", "ament", "prefix", "user", "pip"])
def test_default_bundle_is_found_in_every_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    share = Path("share", "magicfuse_ros", "engines", "nano")
    folders = {
        "source": tmp_path / "source" / "engines" / "nano",
        "ament": tmp_path / "ament" / share,
        "prefix": tmp_path / "prefix" / share,
        "user": tmp_path / "user" / share,
        "pip": tmp_path / "pip" / share,
    }
    monkeypatch.setattr("site.getuserbase", lambda: str(tmp_path / "user"))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "pip"))
    monkeypatch.setattr(
        default, "__file__", str(tmp_path / "source" / "magicfuse_ros" / "bundle" / "x.py")
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path / 'ament'}")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "prefix"))
    folders[place].mkdir(parents=True)
    with pytest.raises(BundleError, match=r"default bundle is missing; expected bundle\.json in"):
        default.default_bundle()
    (folders[place] / MANIFEST).touch()
    assert default.default_bundle() == folders[place]


def test_the_shipped_bundle_tells_its_own_scores() -> None:
    shipped = Bundle.load(Path(__file__).parents[1] / "engines" / "nano")
    scores = shipped.manifest.provenance.scores
    assert scores.get("fingerprint") == shipped.fingerprint
    card = (shipped.root / "MODEL_CARD.md").read_text()
    restored = scores["sets"]["camvid val"]["dark"]["psnr_restored_db"][0]
    assert f"{restored:.2f}" in card
