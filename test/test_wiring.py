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

from collections.abc import Callable
from pathlib import Path

import pytest

from magicfuse_ros.bundle import Bundle, Manifest, NetworkName, TensorSpec
from magicfuse_ros.bundle.wiring import latent_shape, noise_shape, wire
from magicfuse_ros.errors import BundleError

Tensors = tuple[TensorSpec, ...]


def changed(
    manifest: Manifest, name: NetworkName, field: str, change: Callable[[Tensors], Tensors]
) -> Manifest:
    spec = manifest.networks[name]
    spec = spec.model_copy(update={field: change(getattr(spec, field))})
    return manifest.model_copy(update={"networks": {**manifest.networks, name: spec}})


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tuple(
        t.model_copy(update={"name": new}) if t.name == old else t for t in tensors
    )


def reshaped(name: str, shape: tuple[int, ...]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tuple(
        t.model_copy(update={"shape": shape}) if t.name == name else t for t in tensors
    )


@pytest.fixture
def manifest(tiny_bundle: Path) -> Manifest:
    return Bundle.load(tiny_bundle).manifest


def test_inputs_of_every_network(manifest: Manifest) -> None:
    inputs = wire(manifest)
    assert inputs["encoder"] == ("image",)
    assert inputs["ikr"] == inputs["ckg"] == ("condition", "z", "t", "abar_t", "abar_next")
    assert inputs["segmentation"] == ("z_seg", "detail")
    assert latent_shape(manifest) == (1, 4, 8, 12)


@pytest.mark.parametrize(
    ("name", "unknown"),
    [("ikr", "z_seg"), ("decoder", "z"), ("segmentation", "skip"), ("encoder", "detail")],
)
def test_input_without_a_supplier(manifest: Manifest, name: NetworkName, unknown: str) -> None:
    first = manifest.networks[name].inputs[0].name
    wrong = changed(manifest, name, "inputs", renamed(first, unknown))
    with pytest.raises(BundleError, match=rf"{name}\.onnx \({name}\) needs the input '{unknown}'"):
        wire(wrong)


@pytest.mark.parametrize(
    ("name", "output"),
    [("ikr", "x0"), ("ckg", "z_next"), ("mkf", "z_seg_next"), ("segmentation", "mask")],
)
def test_output_that_the_sampler_reads(manifest: Manifest, name: NetworkName, output: str) -> None:
    wrong = changed(manifest, name, "outputs", renamed(output, "other"))
    with pytest.raises(BundleError, match=rf"\({name}\) lacks the output '{output}'"):
        wire(wrong)


@pytest.mark.parametrize(
    ("name", "field", "tensor", "shape"),
    [
        ("encoder", "inputs", "image", (1, 3, 64, 96)),
        ("ikr", "inputs", "z", (1, 8, 8, 12)),
        ("mkf", "outputs", "z_seg_next", (1, 11, 8, 12)),
        ("decoder", "inputs", "detail", (1, 3, 64, 96)),
        ("segmentation", "outputs", "mask", (1, 8, 12)),
        ("mkf", "inputs", "tau", ()),
    ],
)
def test_tensor_of_another_shape(
    manifest: Manifest, name: NetworkName, field: str, tensor: str, shape: tuple[int, ...]
) -> None:
    wrong = changed(manifest, name, field, reshaped(tensor, shape))
    with pytest.raises(BundleError, match=rf"\({name}\): '{tensor}' is .*; expected "):
        wire(wrong)


def test_condition_comes_from_the_encoder(manifest: Manifest) -> None:
    wrong = changed(manifest, "encoder", "outputs", renamed("condition", "features"))
    with pytest.raises(BundleError, match=r"\(ikr\) needs the input 'condition'; known are .*feat"):
        wire(wrong)


def test_noise_of_the_encoder_has_the_latent_size(manifest: Manifest) -> None:
    def taking(shape: tuple[int, ...], name: NetworkName = "encoder") -> Manifest:
        noise = TensorSpec(name="noise", dtype="float32", shape=shape)
        return changed(manifest, name, "inputs", lambda tensors: (*tensors, noise))

    assert noise_shape(manifest) is None
    assert noise_shape(taking((1, 7, 8, 12))) == (1, 7, 8, 12)
    assert wire(taking((1, 7, 8, 12)))["encoder"] == ("image", "noise")
    for shape in ((1, 7, 8, 11), (2, 7, 8, 12), (7,)):
        with pytest.raises(
            BundleError, match=r"\(encoder\): 'noise' is .*; expected float32 \[1, "
        ):
            wire(taking(shape))
    with pytest.raises(BundleError, match=r"\(decoder\) needs the input 'noise'"):
        wire(taking((1, 7, 8, 12), "decoder"))
