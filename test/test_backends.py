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

import gc
import importlib
import os
import shutil
import sys
import threading
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from magicfuse_ros import backends
from magicfuse_ros.backends import interface, tensorrt_engine
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName, NetworkSpec, TensorSpec
from magicfuse_ros.errors import BackendError, BundleError
from magicfuse_ros.fuser import Fuser

INSTALLED = ("openvino", "onnxruntime")
Arrays = dict[str, npt.NDArray[Any]]


def some_inputs(spec: NetworkSpec, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    arrays: Arrays = {}
    for tensor in spec.inputs:
        if tensor.dtype == "uint8":
            arrays[tensor.name] = random.integers(0, 256, tensor.shape, np.uint8)
        else:
            arrays[tensor.name] = random.random(tensor.shape, np.float32)
    return arrays


def call(backend: interface.Backend, path: Path, spec: NetworkSpec, inputs: Arrays) -> Arrays:
    uploaded = {key: backend.upload(value) for key, value in inputs.items()}
    return {k: backend.download(v) for k, v in backend.load(path, spec)(uploaded).items()}


def run(backend: interface.Backend, bundle: Bundle, name: NetworkName, inputs: Arrays) -> Arrays:
    return call(backend, bundle.path(name), bundle.manifest.networks[name], inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_backends_agree(tiny_bundle: Path, name: NetworkName) -> None:
    bundle = Bundle.load(tiny_bundle)
    spec = bundle.manifest.networks[name]
    inputs = some_inputs(spec, seed=1)
    first, second = (run(backends.select(b), bundle, name, inputs) for b in INSTALLED)
    assert first.keys() == second.keys() == {t.name for t in spec.outputs}
    for tensor in spec.outputs:
        a, b = first[tensor.name], second[tensor.name]
        assert a.shape == b.shape == tensor.shape
        assert a.dtype == b.dtype == tensor.dtype
        tolerance = 1 if tensor.dtype == "uint8" else 1e-3
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), atol=tolerance)


@pytest.mark.parametrize("name", INSTALLED)
def test_float32_is_not_computed_in_bfloat16(tmp_path: Path, name: str) -> None:
    """A convolution large enough for a CPU's AMX unit, against float64."""
    random = np.random.default_rng(0)
    weights = random.normal(0, 0.1, (64, 64, 3, 3)).astype(np.float32)
    image = random.normal(0, 1, (1, 64, 32, 32)).astype(np.float32)
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, image.shape) for n in ("in", "out")
    ]
    node = helper.make_node("Conv", ["in", "w"], ["out"], pads=[1] * 4)
    constant = onnx.numpy_helper.from_array(weights, "w")
    graph = helper.make_graph([node], "conv", [values[0]], [values[1]], [constant])
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    tensors = [TensorSpec(name=n, dtype="float32", shape=image.shape) for n in ("in", "out")]
    spec = NetworkSpec(
        file=path.name,
        sha256="0" * 64,
        inputs=(tensors[0],),
        outputs=(tensors[1],),
        parameters=0,
        gflop=0,
    )
    actual = call(backends.select(name), path, spec, {"in": image})["out"]
    padded = np.pad(image[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    expected = np.einsum("oikl,ihwkl->ohw", weights.astype(np.float64), windows, optimize=True)
    np.testing.assert_allclose(actual[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", INSTALLED)
def test_outputs_outlive_the_next_call_and_downloads_outlive_every_call(
    tiny_bundle: Path, name: str
) -> None:
    bundle = Bundle.load(tiny_bundle)
    spec = bundle.manifest.networks["ikr"]
    backend = backends.select(name)
    network = backend.load(bundle.path("ikr"), spec)

    def uploads(seed: int) -> dict[str, interface.Tensor]:
        return {k: backend.upload(v) for k, v in some_inputs(spec, seed).items()}

    first = network(uploads(1))["z_next"]
    kept = backend.download(first)
    before = kept.copy()
    second = network({**uploads(2), "z": first})["z_next"]
    np.testing.assert_array_equal(backend.download(first), before)
    assert not np.array_equal(backend.download(second), before)
    for seed in (3, 4, 5):
        network(uploads(seed))
    np.testing.assert_array_equal(kept, before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinities here")
@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("threads", [0, 1])
def test_no_thread_is_kept_to_a_core(tiny_bundle: Path, name: str, threads: int) -> None:
    """Two pinned nodes of one thread each would share the first core; one may be reserved."""
    gc.collect()
    bundle = Bundle.load(tiny_bundle)
    spec = bundle.manifest.networks["mkf"]
    backend = backends.select(name, threads=threads)
    network = backend.load(bundle.path("mkf"), spec)
    inputs = {k: backend.upload(v) for k, v in some_inputs(spec, 1).items()}
    allowed = os.sched_getaffinity(0)
    if len(allowed) == 1:
        pytest.skip("one core only")
    seen: list[set[int]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for task in os.listdir("/proc/self/task"):
                with suppress(OSError):  # it has exited
                    seen.append(os.sched_getaffinity(int(task)))

    watching = threading.Thread(target=watch)
    watching.start()
    while len(seen) < 2000:
        network(inputs)
    done.set()
    watching.join()
    assert all(cores == allowed for cores in seen)


@pytest.mark.parametrize("name", INSTALLED)
def test_inputs_are_left_alone(tiny_bundle: Path, name: str) -> None:
    bundle = Bundle.load(tiny_bundle)
    for network in NETWORKS:
        inputs = some_inputs(bundle.manifest.networks[network], 1)
        run(backends.select(name), bundle, network, inputs)
        for key, value in some_inputs(bundle.manifest.networks[network], 1).items():
            np.testing.assert_array_equal(inputs[key], value)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_backend_says_what_it_is(name: str) -> None:
    backend = backends.select(name, threads=1)
    library = importlib.import_module(name)
    assert (backend.name, backend.device) == (name, "CPU")
    assert library.__version__.startswith(backend.version)


@pytest.mark.parametrize("name", INSTALLED)
def test_damaged_network(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    spec = Bundle.load(tiny_bundle).manifest.networks["ikr"]
    for content in (b"", b"no network", (tiny_bundle / "ikr.onnx").read_bytes()[:200]):
        path = tmp_path / "ikr.onnx"
        path.write_bytes(content)
        with pytest.raises(BackendError, match=rf"'ikr\.onnx': {name} cannot load it: \S") as info:
            backends.select(name).load(path, spec)
        assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", INSTALLED)
def test_network_that_is_not_what_the_bundle_records(
    tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    bundle = Bundle.load(tiny_bundle)
    path = Path(shutil.copy(tiny_bundle / "segmentation.onnx", tmp_path / "ikr.onnx"))
    with pytest.raises(BackendError, match=r"'ikr\.onnx': input 'abar_next' is absent; .*float32"):
        backends.select(name).load(path, bundle.manifest.networks["ikr"])
    spec = bundle.manifest.networks["segmentation"]
    larger = TensorSpec(name="mask", dtype="uint8", shape=(1, 8, 8))
    spec = spec.model_copy(update={"outputs": (larger, spec.outputs[1])})
    with pytest.raises(BackendError, match=r"'mask' is uint8 \[1, 64, 96\]; .*\[1, 8, 8\]"):
        backends.select(name).load(path, spec)


@pytest.mark.parametrize("name", INSTALLED)
def test_outputs_that_are_one_tensor_inside_the_graph_keep_their_names(
    tmp_path: Path, name: str
) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1,)) for n in "abc"]
    nodes = [
        helper.make_node("Neg", ["a"], ["a0"]),
        helper.make_node("Identity", ["a0"], ["b"]),
        helper.make_node("Identity", ["a0"], ["c"]),
    ]
    graph = helper.make_graph(nodes, "twice", [values[0]], values[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "n.onnx")
    a, b, c = (TensorSpec(name=n, dtype="float32", shape=(1,)) for n in "abc")
    spec = NetworkSpec(
        file="n.onnx", sha256="0" * 64, inputs=(a,), outputs=(b, c), parameters=0, gflop=0
    )
    inputs = {"a": np.ones(1, np.float32)}
    outputs = call(backends.select(name), tmp_path / "n.onnx", spec, inputs)
    assert outputs["b"] == outputs["c"] == -1


def block(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"magicfuse_ros.backends.{package}", raising=False)


def test_auto_takes_openvino_first_and_onnxruntime_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "missing_device", lambda: "no driver")
    assert backends.select().name == "openvino"
    block(monkeypatch, "openvino")
    assert backends.select("auto").name == "onnxruntime"
    choice = backends.choose("auto")
    assert (choice.asked, choice.used) == ("auto", "onnxruntime")
    assert "tensorrt_rtx finds no GPU (no driver); tensorrt likewise; openvino" in choice.why
    assert "openvino is not installed" in choice.why
    assert backends.choose("onnxruntime").why == "asked for"


def installed(name: str) -> ModuleType:
    """Return a module that is found, and does nothing."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin=f"/packages/{name}/__init__.py")
    return module


def test_auto_prefers_a_gpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "missing_device", lambda: "")
    monkeypatch.setitem(sys.modules, "tensorrt", installed("tensorrt"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    choice = backends.choose()
    assert choice.used == "tensorrt"
    assert "tensorrt_rtx is not installed" in choice.why
    assert backends.choose("auto", "fp16").used == "tensorrt"
    assert backends.choose("openvino").used == "openvino"


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_without_a_gpu_the_library_is_not_even_imported(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(backends, "missing_device", lambda: "cudaErrorNoDevice")
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(
        BackendError,
        match=rf"'{name}' finds no GPU \(cudaErrorNoDevice\); available here: openvino, ",
    ):
        backends.select(name)
    assert name not in sys.modules


def test_a_precision_that_a_backend_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "missing_device", lambda: "no driver")
    with pytest.raises(BackendError, match="'openvino' computes in fp32 or int8, not in fp16"):
        backends.select("openvino", precision="fp16")
    with pytest.raises(
        BackendError, match=r"tensorrt_rtx finds no GPU .*; tensorrt likewise; openvino computes in"
    ):
        backends.select("auto", precision="fp16")
    with pytest.raises(BackendError, match=r"'openvino' has no precision 'fp8'; expected .*int8$"):
        backends.select("openvino", precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"'auto' has no precision 'fp8'; expected .*int8$"):
        backends.select("auto", precision="fp8")  # type: ignore[arg-type]
    assert backends.choose("auto", "int8").used == "openvino"
    with pytest.raises(BackendError, match="'tensorrt' computes in fp16 or fp32, not in int8: a G"):
        backends.select("tensorrt", precision="int8")


def gpu_with(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Simulate a GPU with TensorRT whose engine is missing for a given reason."""
    monkeypatch.setattr(backends, "missing_device", lambda: "")
    monkeypatch.setattr(tensorrt_engine, "missing_engine", lambda *given: missing)
    monkeypatch.setitem(sys.modules, "tensorrt", installed("tensorrt"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)


def test_auto_takes_the_cpu_where_no_engine_is_built_and_says_what_builds_it(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(tiny_bundle)
    gpu_with(monkeypatch, "no engine of ckg.onnx was built for sm_87 Orin in fp16")
    choice = backends.choose("auto", bundle=bundle)
    assert (choice.used, choice.precision) == ("openvino", "fp32")
    assert "tensorrt has no engines (no engine of ckg.onnx was built for sm_87 Orin" in choice.why
    command = f"magicfuse build '{bundle.root}' --backend tensorrt --precision fp16"
    assert f"{command})" in choice.why
    assert "--precision fp32)" in backends.choose("auto", "fp32", bundle).why
    assert backends.choose("tensorrt", bundle=bundle).used == "tensorrt"  # never replaced
    gpu_with(monkeypatch, "")
    choice = backends.choose("auto", bundle=bundle)
    assert (choice.used, choice.precision) == ("tensorrt", "fp16")


def test_a_precision_that_nobody_asked_for_is_the_backends_own() -> None:
    precisions = {name: backends.resolve(name, "auto") for name in backends.BACKENDS[1:]}
    assert precisions == {
        "tensorrt_rtx": "fp16", "tensorrt": "fp16", "openvino": "fp32", "onnxruntime": "fp32",
    }  # fmt: skip
    assert backends.select("openvino").precision == "fp32"
    assert backends.select("openvino", precision="int8").precision == "int8"


@pytest.mark.parametrize("faster", [True, False])
def test_openvino_takes_int8_if_bundle_and_cpu_have_it(
    tiny_bundle: Path, tiny_int8_bundle: Path, monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    monkeypatch.setattr(backends, "computes_int8_faster", lambda: faster)
    with_int8, without = Bundle.load(tiny_int8_bundle), Bundle.load(tiny_bundle)
    choice = backends.choose("openvino", bundle=with_int8)
    assert choice.precision == ("int8" if faster else "fp32")
    assert ("int8" in choice.why) == faster
    assert backends.choose("openvino", "fp32", with_int8).precision == "fp32"
    assert backends.choose("openvino", bundle=without).precision == "fp32"
    assert backends.choose("onnxruntime", bundle=with_int8).precision == "fp32"


@pytest.mark.parametrize("name", INSTALLED)
def test_int8_graphs_are_run_and_come_near_float32(tiny_int8_bundle: Path, name: str) -> None:
    bundle = Bundle.load(tiny_int8_bundle)
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 96, 3), np.uint8)
    exact = Fuser(bundle, backends.select(name))(image)
    frame = Fuser(bundle, backends.select(name, precision="int8"))(image)
    for kind in ("mag_image", "restored", "thermal_estimate"):
        a, b = (np.asarray(getattr(f, kind), np.int16) for f in (exact, frame))
        assert np.abs(a - b).max() > 0 and np.abs(a - b).mean() < 3


@pytest.mark.parametrize("name", INSTALLED)
def test_int8_of_a_bundle_without_it_is_refused(tiny_bundle: Path, name: str) -> None:
    with pytest.raises(BundleError, match="has no int8 graphs"):
        Fuser(Bundle.load(tiny_bundle), backends.select(name, precision="int8"))


def test_openvino_computes_quantised_convolutions_in_int8(tiny_int8_bundle: Path) -> None:
    import openvino as ov

    from magicfuse_ros.backends.openvino import settings

    bundle = Bundle.load(tiny_int8_bundle).quantized()
    compiled = ov.Core().compile_model(bundle.path("encoder"), "CPU", settings(0))
    assert isinstance(compiled, ov.CompiledModel)
    kinds = [
        node.get_rt_info()["runtimePrecision"].value
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].value == "Convolution"
    ]
    assert kinds and all(kind in ("u8", "i8") for kind in kinds)


class Watched:
    """Records what a builder tells its monitor; asks it to stop after `patience` steps."""

    def __init__(self, patience: int | None = None) -> None:
        self.cancelled = False
        self.steps: list[tuple[str, int, int]] = []
        self._patience = patience

    def step(self, phase: str, done: int, total: int) -> None:
        self.steps.append((phase, done, total))
        self.cancelled = self._patience is not None and len(self.steps) >= self._patience


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(BackendError, match="'auto' is not known; expected one of tensorrt_rtx, "):
        backends.builder("auto")
    with pytest.raises(BackendError, match="'onnxruntime' has nothing to build"):
        backends.builder("onnxruntime")
    with pytest.raises(BackendError, match="'openvino' has no engines"):
        backends.builder("openvino")


def test_missing_backend_is_named_with_the_remedy_and_never_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block(monkeypatch, "openvino")
    with pytest.raises(
        BackendError,
        match=r"'openvino' is not installed .*: pip install openvino; available here: onnxruntime$",
    ):
        backends.select("openvino")
    block(monkeypatch, "onnxruntime")
    with pytest.raises(BackendError, match="available here: none"):
        backends.select("onnxruntime")
    monkeypatch.setattr(backends, "missing_device", lambda: "no driver")
    with pytest.raises(BackendError, match=r"openvino is not.*: pip install openvino; onnxruntime"):
        backends.select("auto")


def test_unknown_backend_and_impossible_threads() -> None:
    with pytest.raises(
        BackendError, match="'cuda' is not known; expected one of auto, tensorrt_rtx,"
    ):
        backends.select("cuda")
    with pytest.raises(BackendError, match="threads is -1; expected 0"):
        backends.select("openvino", threads=-1)
