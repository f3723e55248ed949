# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Networks that OpenVINO runs as one: same results, and each network's share of the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from magicfuse_ros.backends import select
from magicfuse_ros.backends.interface import Part
from magicfuse_ros.backends.openvino_join import shares
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkSpec, TensorSpec
from magicfuse_ros.errors import BackendError
from magicfuse_ros.outputs import OUTPUTS
from magicfuse_ros.sampler import Sampler

IMAGE = TensorSpec(name="image", dtype="uint8", shape=(1, 64, 96, 3))


@pytest.fixture
def image() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (1, 64, 96, 3), np.uint8)


def parts(bundle: Bundle, *names: str) -> list[Part]:
    specs = {str(name): spec for name, spec in bundle.manifest.networks.items()}
    return [Part(n, bundle.root / specs[n].file, specs[n]) for n in names]


def test_an_image_does_not_depend_on_what_else_is_wanted(tiny_uncertain_bundle: Path) -> None:
    """A single network runs by itself, all together run joined."""
    sampler = Sampler(Bundle.load(tiny_uncertain_bundle), select("openvino"))
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (1, 64, 96, 3), np.uint8)
        together = sampler.sample(image, frozenset(OUTPUTS), 1, 0.4)
        for name in OUTPUTS:
            alone = getattr(sampler.sample(image, frozenset({name}), 1, 0.4), name)
            difference = np.abs(alone.astype(int) - getattr(together, name))
            # a code of the uncertainty that differs by 1 is 1.8 % larger: up to 5 of 255
            limit = 5 if name == "thermal_uncertainty" else 1
            assert difference.max() <= limit, (name, seed)


def test_joined_networks_still_tell_their_times(
    tiny_bundle: Path, image: npt.NDArray[np.uint8]
) -> None:
    sampler = Sampler(Bundle.load(tiny_bundle), select("openvino"))
    for _ in range(3):
        stages = sampler.sample(image, frozenset({"mag_image", "mask"}), 1, 0.4).stages_ms
        assert all(stages[name] > 0 for name in NETWORKS)


def test_a_joined_network_may_call_one_of_its_parts_again(tiny_bundle: Path) -> None:
    bundle, backend = Bundle.load(tiny_bundle), select("openvino")
    z = backend.upload(np.ones((1, 4, 8, 12), np.float32))
    number = backend.upload(np.full(1, 0.5, np.float32))
    step = {"t": number, "abar_t": number, "abar_next": number}
    network = backend.join(
        parts(bundle, "encoder", "ikr"),
        [IMAGE],
        lambda networks, tensors: {
            "twice": networks["ikr"](
                {
                    **(encoded := networks["encoder"]({"image": tensors["image"]})),
                    **step,
                    "z": networks["ikr"]({**encoded, **step, "z": z})["z_next"],
                }
            )["z_next"]
        },
    )
    assert network is not None
    spec = bundle.manifest.networks
    encoder, ikr = (backend.load(bundle.path(n), spec[n]) for n in ("encoder", "ikr"))
    frame = np.random.default_rng(1).integers(0, 256, IMAGE.shape, np.uint8)
    encoded = encoder({"image": backend.upload(frame)})
    once = ikr({"condition": encoded["condition"], **step, "z": z})["z_next"]
    expected = ikr({"condition": encoded["condition"], **step, "z": once})["z_next"]
    actual = network({"image": backend.upload(frame)})["twice"]
    np.testing.assert_allclose(backend.download(actual), backend.download(expected), atol=1e-5)


def test_a_broken_part_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    (part,) = parts(bundle, "encoder")
    broken = tmp_path / "encoder.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(BackendError, match=r"encoder.*openvino cannot load it"):
        select("openvino").join(
            [Part(part.name, broken, part.spec)],
            [IMAGE],
            lambda networks, tensors: dict(networks["encoder"](tensors)),
        )


def test_what_is_constant_in_a_joined_network_stays_so(tmp_path: Path) -> None:
    """OpenVINO 2026.4 computes it in the first frame, and adds every frame's result to it."""
    spec, path = of_two_convolutions(tmp_path), tmp_path / "sum.onnx"
    backend, random = select("openvino"), np.random.default_rng(1)
    z = backend.upload(random.standard_normal((1, 8, 12, 16), np.float32))
    joined = backend.join(
        [Part("ikr", path, spec)],
        [spec.inputs[0]],
        lambda networks, tensors: dict(networks["ikr"]({**tensors, "z": z})),
    )
    assert joined is not None
    alone = backend.load(path, spec)
    for _ in range(4):
        x = backend.upload(random.standard_normal((1, 8, 12, 16), np.float32))
        actual, expected = joined({"x": x})["sum"], alone({"x": x, "z": z})["sum"]
        np.testing.assert_allclose(
            backend.download(actual), backend.download(expected), rtol=1e-4, atol=1e-4
        )


def of_two_convolutions(folder: Path) -> NetworkSpec:
    """Write a network that adds convolutions of x and of z."""
    random = np.random.default_rng(0)
    weights = [random.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32) for _ in range(2)]
    nodes = [
        helper.make_node("Conv", ["z", "w1", "bias"], ["b"], pads=[1] * 4),
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Add", ["b", "a"], ["sum"]),
    ]
    tensors = [TensorSpec(name=n, dtype="float32", shape=(1, 8, 12, 16)) for n in ("x", "z", "sum")]
    values = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in tensors]
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    constants.append(numpy_helper.from_array(random.normal(0, 1, 8).astype(np.float32), "bias"))
    graph = helper.make_graph(nodes, "sum", values[:2], values[2:], constants)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "sum.onnx")
    return NetworkSpec(
        file="sum.onnx", sha256="0" * 64, inputs=tuple(tensors[:2]), outputs=tuple(tensors[2:]),
        parameters=0, gflop=0,
    )  # fmt: skip


@dataclass
class Node:
    node_name: str
    real_time: timedelta


def test_shares_go_by_the_names_of_operations_and_their_order(tiny_bundle: Path) -> None:
    both = parts(Bundle.load(tiny_bundle), "ikr", "mkf")
    profile = [
        Node("ikr/conv", timedelta(microseconds=30)),
        Node("mkf/conv_acdb_abcd_ikr/conv", timedelta(microseconds=50)),
        Node("Multiply_4", timedelta(microseconds=20)),
    ]
    assert shares(both, profile) == pytest.approx({"ikr": 0.3, "mkf": 0.7})
    assert shares(both, []) == {"ikr": 0.0, "mkf": 0.0}
