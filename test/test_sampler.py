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

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tiny_bundle as tiny
from magicfuse_ros.backends import select
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.interface import Network, Tensor
from magicfuse_ros.bundle import Bundle, NetworkName, NetworkSpec, TensorSpec
from magicfuse_ros.errors import BundleError
from magicfuse_ros.outputs import OUTPUTS, Output, available_outputs, frame_gflop, network_calls
from magicfuse_ros.sampler import Sampler

Array = npt.NDArray[Any]
CERTAIN: tuple[Output, ...] = tuple(n for n in OUTPUTS if n != "thermal_uncertainty")
ALL = frozenset(CERTAIN)  # outputs of every bundle


class Counting:
    """Forwards everything to a real backend and records which network runs on what."""

    name = version = device = "counting"
    records = False
    precision: Precision = "fp32"
    loads_at_once = frames_at_once = 1

    def __init__(self) -> None:
        self.inner = select("onnxruntime")
        self.calls: list[tuple[str, dict[str, Array]]] = []

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        network = self.inner.load(path, spec)

        def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            self.calls.append((path.stem, {k: np.array(v) for k, v in inputs.items()}))
            return network(inputs)

        return call

    def join(self, *_: object) -> None:
        """Every network is visible."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def count(self) -> dict[str, int]:
        names = [name for name, _ in self.calls]
        return {name: names.count(name) for name in sorted(set(names))}


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture
def uncertain(tiny_uncertain_bundle: Path) -> Bundle:
    return Bundle.load(tiny_uncertain_bundle)


@pytest.fixture
def image() -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(5).integers(0, 256, (1, 8, 12, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=1).repeat(8, axis=2))


def conv(x: Array, weights: Array) -> Array:
    return np.asarray(np.einsum("oc,nchw->nohw", weights[:, :, 0, 0], x))


def pool(x: Array, size: int) -> Array:
    n, c, h, w = x.shape
    return np.asarray(x.reshape(n, c, h // size, size, w // size, size).mean(axis=(3, 5)))


def enlarge(x: Array, factor: int) -> Array:
    return x.repeat(factor, axis=2).repeat(factor, axis=3)


def by_hand(image: Array, grid: list[int], tau: float) -> dict[str, Array]:
    """The paper's method on the tiny networks in float64, without the package's sampler."""
    planes = image.transpose(0, 3, 1, 2) / 255.0
    condition, detail = conv(pool(planes, 8), tiny.ENCODE), pool(planes, 2)
    betas = np.linspace(0.00085, 0.012, 1000)
    root = np.sqrt(np.cumprod(1 - betas))
    abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    z = dict.fromkeys(
        ("ikr", "ckg", "mkf"), np.random.default_rng(3).standard_normal((1, 4, 8, 12), np.float32)
    )
    z_seg = np.zeros((1, 3, 8, 12))
    x0: dict[str, Array] = {}
    eps: dict[str, Array] = {}
    for i, t in enumerate(grid):
        now, after = abar[t], abar[grid[i + 1]] if i + 1 < len(grid) else 1.0
        for name, (a, b, c) in tiny.BRANCHES.items():
            v = a * condition + b * z[name] + c * t / 1000
            x0[name] = np.sqrt(now) * z[name] - np.sqrt(1 - now) * v
            eps[name] = np.sqrt(1 - now) * z[name] + np.sqrt(now) * v
        w = np.minimum(1 / (1 + np.exp(x0["ikr"] - z["mkf"])), tau)
        x0["mkf"] = w * x0["ikr"] + (1 - w) * x0["ckg"]
        eps["mkf"] = w * eps["ikr"] + (1 - w) * eps["ckg"]
        z = {n: np.sqrt(after) * x0[n] + np.sqrt(1 - after) * eps[n] for n in z}
        z_seg = 0.5 * z_seg + conv(x0["mkf"], tiny.CLASSIFY)
    scores = enlarge(z_seg, 8) + enlarge(detail, 2)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    images = {
        n: np.clip(enlarge(conv(x0[n], tiny.DECODE), 8) + enlarge(detail, 2), 0, 1)[0] * 255
        for n in z
    }
    return {
        "mag_image": images["mkf"].transpose(1, 2, 0),
        "restored": images["ikr"].transpose(1, 2, 0),
        "thermal_image": images["ckg"].transpose(1, 2, 0),
        "mask": scores[0].argmax(axis=0),
        "confidence": 255 * (odds.max(axis=1) / odds.sum(axis=1))[0],
    }


# The last grid starts with some signal in z, so that the two streams' noise differs.
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("grid", [[999], [999, 499], [700, 300]])
@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
def test_the_sample_is_what_the_method_says(
    bundle: Bundle, image: npt.NDArray[np.uint8], backend: str, grid: list[int], tau: float
) -> None:
    manifest = bundle.manifest.model_copy(update={"step_grids": {len(grid): grid}})
    sampler = Sampler(Bundle(bundle.root, manifest), select(backend))
    sample = sampler.sample(image, ALL, len(grid), tau)
    by_name = by_hand(image, grid, tau)
    by_name["thermal_estimate"] = by_name.pop("thermal_image") @ [0.299, 0.587, 0.114]  # BT.601
    for name, expected in by_name.items():
        actual = getattr(sample, name)
        assert actual.dtype == np.uint8 and actual.shape == expected.shape
        tolerance = 0 if name == "mask" else 1.01  # rounding
        np.testing.assert_allclose(actual.astype(float), expected, atol=tolerance, err_msg=name)


# Labels and MagImg with K = 1 make OpenVINO run the joined network.
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("outputs", [("thermal_estimate", "thermal_uncertainty"), OUTPUTS])
def test_the_uncertainty_is_what_the_blue_channel_codes(
    uncertain: Bundle,
    image: npt.NDArray[np.uint8],
    backend: str,
    steps: int,
    outputs: tuple[Output, ...],
) -> None:
    sample = Sampler(uncertain, select(backend)).sample(image, frozenset(outputs), steps, 0.4)
    thermal = by_hand(image, tiny.GRIDS[steps], 0.4)["thermal_image"]
    red, blue = thermal[..., 0], thermal[..., 2]
    assert sample.thermal_estimate is not None and sample.thermal_uncertainty is not None
    np.testing.assert_allclose(sample.thermal_estimate.astype(float), red, atol=1.01)
    # sqrt(pi / 2) x 255 x 0.01 x 100^(code / 255), saturated; code and result are rounded
    low, high = (
        np.minimum(3.19595 * 100 ** ((blue + off) / 255), 255) + off for off in (-0.6, 0.6)
    )
    actual = sample.thermal_uncertainty
    assert actual.dtype == np.uint8 and actual.shape == (64, 96)
    assert ((low <= actual) & (actual <= high)).all()
    assert actual.min() < 10 and actual.max() > 200


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_frames_do_not_depend_on_the_frames_before(
    bundle: Bundle, image: npt.NDArray[np.uint8], backend: str
) -> None:
    sampler = Sampler(bundle, select(backend))
    first = sampler.sample(image, ALL, 2, 0.4)
    kept = {name: getattr(first, name).copy() for name in CERTAIN}
    other = sampler.sample(255 - image, ALL, 1, 0.9)
    sampler.sample(255 - image, ALL, 2, 0.9)
    again = sampler.sample(image, ALL, 2, 0.4)
    for name in CERTAIN:
        np.testing.assert_array_equal(getattr(first, name), kept[name])
        np.testing.assert_array_equal(getattr(again, name), kept[name])
        assert not np.array_equal(getattr(other, name), kept[name])


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ((), {}),
        (("restored",), {"encoder": 1, "ikr": 2, "decoder": 1}),
        (("thermal_estimate",), {"encoder": 1, "ckg": 2, "decoder": 1}),
        (("thermal_uncertainty",), {"encoder": 1, "ckg": 2, "decoder": 1}),
        (("thermal_estimate", "thermal_uncertainty"), {"encoder": 1, "ckg": 2, "decoder": 1}),
        (("mask",), {"encoder": 1, "ikr": 2, "ckg": 2, "mkf": 2, "segmentation": 1}),
        (("confidence", "mask"), {"encoder": 1, "ikr": 2, "ckg": 2, "mkf": 2, "segmentation": 1}),
        (("mag_image",), {"encoder": 1, "ikr": 2, "ckg": 2, "mkf": 2, "decoder": 1}),
        (OUTPUTS, {"encoder": 1, "ikr": 2, "ckg": 2, "mkf": 2, "segmentation": 1, "decoder": 3}),
    ],
)
def test_only_what_the_outputs_need_runs(
    uncertain: Bundle,
    image: npt.NDArray[np.uint8],
    outputs: tuple[Output, ...],
    expected: dict[str, int],
) -> None:
    backend = Counting()
    sample = Sampler(uncertain, backend).sample(image, frozenset(outputs), 2, 0.4)
    assert backend.count() == expected
    assert {name for name in OUTPUTS if getattr(sample, name) is not None} == set(outputs)
    assert {name for name, ms in sample.stages_ms.items() if ms > 0} == set(expected)


def test_predicted_calls_are_the_calls_for_every_choice_of_outputs(
    uncertain: Bundle, image: npt.NDArray[np.uint8]
) -> None:
    backend = Counting()
    sampler = Sampler(uncertain, backend)
    full = sampler.sample(image, frozenset(OUTPUTS), 2, 0.4)
    for size in range(len(OUTPUTS) + 1):
        for outputs in combinations(OUTPUTS, size):
            backend.calls.clear()
            sample = sampler.sample(image, frozenset(outputs), 2, 0.4)
            expected = {n: c for n, c in network_calls(outputs, 2).items() if c}
            assert backend.count() == expected
            for name in outputs:
                np.testing.assert_array_equal(getattr(sample, name), getattr(full, name))


class CountingApart(Counting):
    """Records the networks that run beside OpenVINO's joined one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = select("openvino")

    def join(self, *arguments: Any) -> Any:
        return self.inner.join(*arguments)


def test_beside_the_joined_network_both_thermal_outputs_take_one_decoder_call(
    uncertain: Bundle, image: npt.NDArray[np.uint8]
) -> None:
    backend = CountingApart()
    sampler = Sampler(uncertain, backend)
    full = sampler.sample(image, frozenset(OUTPUTS), 1, 0.4)
    assert backend.count() == {"decoder": 2}  # the other one decodes the restored image
    for left_out in ("thermal_estimate", "thermal_uncertainty"):
        backend.calls.clear()
        sample = sampler.sample(image, frozenset(OUTPUTS) - {left_out, "restored"}, 1, 0.4)
        assert backend.count() == {"decoder": 1}
        assert getattr(sample, left_out) is None
        (other,) = {"thermal_estimate", "thermal_uncertainty"} - {left_out}
        np.testing.assert_array_equal(getattr(sample, other), getattr(full, other))


def test_only_some_bundles_have_the_uncertainty(bundle: Bundle, uncertain: Bundle) -> None:
    assert available_outputs(bundle.manifest) == CERTAIN
    assert available_outputs(uncertain.manifest) == OUTPUTS


def test_gflop_of_a_frame_counts_every_decoder_call(bundle: Bundle) -> None:
    default: tuple[Output, ...] = ("mag_image", "mask", "confidence")
    # The tiny bundle's networks cost 1, 2, .. 6 MFLOP in the order of NETWORKS.
    assert frame_gflop(bundle, default, 1) == pytest.approx(0.021)
    assert frame_gflop(bundle, default, 2) == pytest.approx(0.021 + 0.009)
    assert frame_gflop(bundle, CERTAIN, 2) == pytest.approx(0.021 + 0.009 + 2 * 0.006)
    assert frame_gflop(bundle, OUTPUTS, 2) == frame_gflop(bundle, CERTAIN, 2)
    assert frame_gflop(bundle, (), 2) == 0


def test_all_streams_of_all_frames_start_from_the_noise_of_the_seed(
    bundle: Bundle, image: npt.NDArray[np.uint8]
) -> None:
    def starts(seed: int) -> list[Array]:
        backend = Counting()
        manifest = bundle.manifest.model_copy(update={"seed": seed})
        sampler = Sampler(Bundle(bundle.root, manifest), backend)
        for _ in range(2):
            sampler.sample(image, ALL, 2, 0.4)
        return [
            inputs["z"] for _, inputs in backend.calls if "z" in inputs and inputs["abar_t"] == 0
        ]

    noise = np.random.default_rng(3).standard_normal((1, 4, 8, 12), np.float32)
    assert len(starts(3)) == 6
    for z in starts(3):
        np.testing.assert_array_equal(z, noise)
    assert not np.array_equal(starts(4)[0], noise)


class TakingNoise(Counting):
    """Records the encoder's noise, which the tiny encoder itself does not take."""

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        rest = tuple(t for t in spec.inputs if t.name != "noise")
        network = super().load(path, spec.model_copy(update={"inputs": rest}))

        def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            results = network({k: v for k, v in inputs.items() if k != "noise"})
            self.calls[-1][1].update({k: np.array(v) for k, v in inputs.items()})
            return results

        return call


def test_scores_and_encoder_noise_are_drawn_from_the_seed_where_a_bundle_wants_them(
    bundle: Bundle, image: npt.NDArray[np.uint8]
) -> None:
    encoder = bundle.manifest.networks["encoder"]
    noise = TensorSpec(name="noise", dtype="float32", shape=(1, 5, 8, 12))
    encoder = encoder.model_copy(update={"inputs": (*encoder.inputs, noise)})
    networks = {**bundle.manifest.networks, "encoder": encoder}
    changes = {"z_seg_start": "normal", "networks": networks}
    backend = TakingNoise()
    sampler = Sampler(Bundle(bundle.root, bundle.manifest.model_copy(update=changes)), backend)
    for _ in range(2):
        sampler.sample(image, ALL, 1, 0.4)
    random = np.random.default_rng(3)
    z_T, z_seg, expected = (  # noqa: N806
        random.standard_normal((1, c, 8, 12), np.float32) for c in (4, 3, 5)
    )
    given = [
        [inputs[key] for name, inputs in backend.calls if name == network]
        for network, key in (("ikr", "z"), ("mkf", "z_seg"), ("encoder", "noise"))
    ]
    for arrays, want in zip(given, (z_T, z_seg, expected), strict=True):
        assert len(arrays) == 2
        for array in arrays:
            np.testing.assert_array_equal(array, want)


@pytest.mark.parametrize("steps", [0, 3])
def test_untrained_steps_are_refused(
    bundle: Bundle, image: npt.NDArray[np.uint8], steps: int
) -> None:
    with pytest.raises(BundleError, match=f"steps is {steps}"):
        Sampler(bundle, select()).sample(image, ALL, steps, 0.4)


def test_graphs_that_do_not_fit_together_are_refused_before_any_is_loaded(bundle: Bundle) -> None:
    names: list[NetworkName] = ["ikr", "decoder"]
    networks = dict(bundle.manifest.networks)
    networks["ikr"], networks["decoder"] = (networks[n] for n in reversed(names))
    backend = Counting()
    backend.inner = NotImplemented  # loading would fail
    manifest = bundle.manifest.model_copy(update={"networks": networks})
    with pytest.raises(BundleError, match=r"\(ikr\) needs the input 'x0'"):
        Sampler(Bundle(bundle.root, manifest), backend)
