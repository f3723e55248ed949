# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""TensorRT engines; TensorRT for RTX really builds them without a GPU, running them needs one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cuda_stand_in import Library
from magicfuse_ros import backends
from magicfuse_ros.backends import interface, tensorrt_build, tensorrt_library
from magicfuse_ros.backends.cuda import missing_device
from magicfuse_ros.backends.engine_cache import (
    EngineCache,
    EngineKey,
    Precision,
    read_checked,
    write_checked,
)
from magicfuse_ros.bench import gpu_peak
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName, NetworkSpec
from magicfuse_ros.errors import BackendError, EngineError
from test_backends import Watched, some_inputs

pytestmark = pytest.mark.usefixtures("own_cache")

NANO = Path(__file__).resolve().parents[1] / "engines" / "nano"
rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)
no_gpu = missing_device()
gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(no_gpu), reason=f"no GPU: {no_gpu}")]
BUILDS = [
    (device, precision)
    for device in ("sm_75", "sm_86", "sm_89", "sm_120")
    for precision in ("fp32", "fp16")
    if (device, precision) != ("sm_75", "fp32")
]
SPEC = NetworkSpec(file="n.onnx", sha256="0" * 64, inputs=(), outputs=(), parameters=0, gflop=0)


@pytest.fixture(scope="module")
def builder() -> Iterator[interface.Builder]:
    yield backends.builder("tensorrt_rtx", "fp16")


def save(path: Path, nodes: list[onnx.NodeProto], shape: list[int]) -> Path:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("in", "out")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:])
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("ours", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@rtx
@pytest.mark.parametrize(("device", "precision"), BUILDS)
def test_every_network_of_the_tiny_bundle_builds(
    tiny_bundle: Path, builder: interface.Builder, device: str, precision: Precision
) -> None:
    bundle = Bundle.load(tiny_bundle)
    for name in NETWORKS:
        spec = bundle.manifest.networks[name]
        watched = Watched()
        engine = builder.build(bundle.path(name), spec, device, precision, watched)
        assert len(engine) > 1000
        assert watched.steps[0][1] == 0
        done, total = watched.steps[-1][1:]
        assert done == total > 1


@rtx
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("device", "precision"), BUILDS)
def test_every_network_of_nano_builds(
    builder: interface.Builder, name: NetworkName, device: str, precision: Precision
) -> None:
    bundle = Bundle.load(NANO)
    spec = bundle.manifest.networks[name]
    engine = builder.build(bundle.path(name), spec, device, precision, Watched())
    assert len(engine) > bundle.path(name).stat().st_size  # its weights are in float16


@rtx
def test_what_the_oldest_gpus_cannot_do_is_refused_with_the_reason(
    builder: interface.Builder,
) -> None:
    bundle = Bundle.load(NANO)
    spec, path = bundle.manifest.networks["ckg"], bundle.path("ckg")
    with pytest.raises(
        BackendError,
        match=r"'ckg\.onnx': .* no matrix product in float32 .* 7\.5; build it in fp16",
    ):
        builder.build(path, spec, "sm_75", "fp32", Watched())


@rtx
def test_what_the_library_says_of_a_failure_is_in_the_message(
    builder: interface.Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_library.Library, "refusal", lambda *given: "")
    weight = helper.make_node("Constant", [], ["w"], value_floats=[1.0] * 16)
    shape = helper.make_node("Constant", [], ["s"], value_ints=[4, 4])
    nodes = [
        weight,
        shape,
        helper.make_node("Reshape", ["w", "s"], ["square"]),
        helper.make_node("MatMul", ["in", "square"], ["out"], name="product"),
    ]
    path = save(tmp_path / "mkf.onnx", nodes, [4, 4])
    with pytest.raises(BackendError, match=r"for sm_75 in fp32: .*'product'.*FP32 GEMM") as error:
        builder.build(path, SPEC, "sm_75", "fp32", Watched())
    assert "\n" not in str(error.value)


@rtx
def test_float32_is_not_rounded_to_tf32(
    builder: interface.Builder, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    aim = tensorrt_library.Library.aim

    def watch(library: tensorrt_library.Library, module: Any, config: Any, device: str) -> None:
        aim(library, module, config, device)
        limit = config.get_memory_pool_limit(module.MemoryPoolType.WORKSPACE)
        seen.append((config.get_flag(module.BuilderFlag.TF32), limit))

    monkeypatch.setattr(tensorrt_library.Library, "aim", watch)
    bundle = Bundle.load(tiny_bundle)
    spec = bundle.manifest.networks["segmentation"]
    builder.build(bundle.path("segmentation"), spec, "sm_89", "fp32", Watched())
    assert seen == [(False, 1 << 30)]


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_measures_the_gpus_peak_builds(
    builder: interface.Builder, tmp_path: Path, precision: Precision
) -> None:
    path = tmp_path / "peak.onnx"
    onnx.save(gpu_peak._chain((1, 64, 16, 16)), path)
    assert builder.build(path, SPEC, "sm_89", precision, Watched())


@rtx
def test_half_engines_are_smaller_and_capabilities_differ(builder: interface.Builder) -> None:
    bundle = Bundle.load(NANO)
    spec = bundle.manifest.networks["encoder"]  # mostly weights, unlike the smaller ones

    def build(device: str, precision: Precision) -> bytes:
        return builder.build(bundle.path("encoder"), spec, device, precision, Watched())

    exact, half, other = build("sm_89", "fp32"), build("sm_89", "fp16"), build("sm_86", "fp16")
    assert len(half) < 0.8 * len(exact)
    assert half != other


@rtx
def test_an_operator_that_the_parser_refuses_is_named_with_node_and_network(
    builder: interface.Builder, tmp_path: Path
) -> None:
    node = helper.make_node("Wavelet", ["in"], ["out"], name="down_3", domain="ours")
    path = save(tmp_path / "ckg.onnx", [node], [1, 4])
    with pytest.raises(
        BackendError, match=r"'ckg\.onnx': tensorrt_rtx cannot parse it: Wavelet \(node down_3\): "
    ) as error:
        builder.build(path, SPEC, "sm_89", "fp32", Watched())
    assert "\n" not in str(error.value)


@rtx
def test_a_file_that_is_no_network_is_named(builder: interface.Builder, tmp_path: Path) -> None:
    path = tmp_path / "ckg.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(BackendError, match=r"'ckg\.onnx': onnx cannot read it: \S"):
        builder.build(path, SPEC, "sm_89", "fp32", Watched())


@rtx
def test_timings_of_a_device_are_kept_for_its_next_build(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorRT itself needs a GPU; TensorRT for RTX replaces it here."""

    class OnTheGpu(tensorrt_library.Library):
        def aim(self, module: Any, config: Any, device: str) -> None:
            tensorrt_library.RTX.aim(module, config, "sm_89")

    monkeypatch.setattr(OnTheGpu, "_check_driver", lambda library: None)
    used: list[int] = []
    use = tensorrt_build._use_timings

    def watch(config: Any, path: Path) -> None:
        use(config, path)
        used.append(path.stat().st_size if path.is_file() else 0)

    monkeypatch.setattr(tensorrt_build, "_use_timings", watch)
    library = OnTheGpu("tensorrt_rtx", oldest=(1, 2), update="", portable=False)
    builder = tensorrt_build.EngineBuilder(library)
    bundle = Bundle.load(tiny_bundle)
    spec, path = bundle.manifest.networks["decoder"], bundle.path("decoder")
    for device in ("sm_87 Orin, NX", "sm_87 Orin, NX", "sm_87 Orin, Nano"):
        assert builder.build(path, spec, device, "fp16", Watched())
    assert used[0] == used[2] == 0 < used[1]
    files = sorted(EngineCache().root.glob("*/timings-*"))
    assert [f.name.split("-", 2)[2] for f in files] == [
        "sm_87_Orin__NX.cache",
        "sm_87_Orin__Nano.cache",
    ]
    write_checked(files[0], b"of another release")  # whole, but the library refuses it
    assert builder.build(path, spec, "sm_87 Orin, NX", "fp16", Watched())
    assert not caplog.messages
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert builder.build(path, spec, "sm_87 Orin, NX", "fp16", Watched())
    assert f"'{files[0]}' is not used: it was changed or damaged" in caplog.text
    assert read_checked(files[0])
    files[0].unlink()
    files[0].mkdir()  # not writable
    assert builder.build(path, spec, "sm_87 Orin, NX", "fp16", Watched())
    assert f"cannot write '{files[0]}'" in caplog.text


@rtx
def test_a_build_can_be_cancelled(builder: interface.Builder) -> None:
    bundle = Bundle.load(NANO)
    watched = Watched(patience=3)
    with pytest.raises(BackendError, match=r"'ckg\.onnx'.* for sm_89 in fp32: cancelled"):
        spec = bundle.manifest.networks["ckg"]
        builder.build(bundle.path("ckg"), spec, "sm_89", "fp32", watched)


@rtx
def test_capabilities_are_checked(builder: interface.Builder) -> None:
    assert builder.devices(["8.9", "12.0", "8.9"]) == ["sm_89", "sm_120"]
    with pytest.raises(BackendError, match=r"is 9\.9; tensorrt_rtx builds for 7\.5, .*, 12\.0"):
        builder.devices(["9.9"])


@rtx
def test_the_gpu_of_this_machine_is_built_for_unless_the_library_refuses_it(
    builder: interface.Builder, runtime: Library
) -> None:
    assert builder.devices([]) == ["sm_89"]
    runtime.capability = (9, 0)  # an H100
    with pytest.raises(BackendError, match=r"of Test GPU is 9\.0; tensorrt_rtx builds for 7\.5, "):
        builder.devices([])


@rtx
@pytest.mark.skipif(not no_gpu, reason="there is a GPU")
def test_without_a_gpu_its_capability_must_be_named(builder: interface.Builder) -> None:
    with pytest.raises(BackendError, match=r"no GPU here .*name one with --compute-capability"):
        builder.devices([])


@pytest.mark.parametrize("name", [pytest.param(n, marks=gpu) for n in ("tensorrt_rtx", "tensorrt")])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_computes_what_onnxruntime_computes(
    tiny_bundle: Path, name: str, precision: Precision
) -> None:
    pytest.importorskip(name)
    bundle = Bundle.load(tiny_bundle)
    engines, cache = backends.builder(name, precision), EngineCache()
    (device,) = engines.devices([])
    backend, reference = backends.select(name, precision=precision), backends.select("onnxruntime")
    for network in NETWORKS:
        path, spec = bundle.path(network), bundle.manifest.networks[network]
        with pytest.raises(EngineError, match=f"run: .*magicfuse build .* --backend {name}"):
            backend.load(path, spec)
        engine = engines.build(path, spec, device, precision, Watched())
        cache.store(EngineKey.of(spec, name, engines.version, device, precision), engine)
        inputs = some_inputs(spec, 1)
        results = backend.load(path, spec)({k: backend.upload(v) for k, v in inputs.items()})
        expected = reference.load(path, spec)(inputs)
        for tensor in spec.outputs:
            actual = backend.download(results[tensor.name])
            wanted = np.asarray(expected[tensor.name])
            assert actual.dtype == wanted.dtype and actual.shape == wanted.shape
            if tensor.name != "mask":
                atol = 2 if tensor.dtype == "uint8" else 1e-3 if precision == "fp32" else 2e-2
                np.testing.assert_allclose(
                    actual.astype(np.float32), wanted.astype(np.float32), atol=atol
                )
