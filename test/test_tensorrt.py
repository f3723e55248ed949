"""Engines of TensorRT; TensorRT for RTX really builds them without a GPU, running needs one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from magicfuse_ros import backends
from magicfuse_ros.backends import interface
from magicfuse_ros.backends.cuda import missing_device
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName, NetworkSpec
from magicfuse_ros.engine_cache import EngineCache, EngineKey, Precision
from magicfuse_ros.errors import BackendError, EngineError
from test_backends import Watched, some_inputs

NANO = Path(__file__).resolve().parents[1] / "engines" / "nano"
rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)
no_gpu = missing_device()
gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(no_gpu), reason=f"no GPU: {no_gpu}")]
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
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("device", ["sm_86", "sm_89", "sm_120"])
def test_every_network_of_the_tiny_bundle_builds(
    tiny_int8_bundle: Path, builder: interface.Builder, device: str, precision: Precision
) -> None:
    bundle = Bundle.load(tiny_int8_bundle)
    if precision == "int8":
        bundle = bundle.quantized()
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
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("device", ["sm_86", "sm_89", "sm_120"])
def test_every_network_of_nano_builds(
    builder: interface.Builder, name: NetworkName, device: str, precision: Precision
) -> None:
    bundle = Bundle.load(NANO)
    if precision == "int8":
        if bundle.manifest.quantization is None:
            pytest.skip("nano has no int8 graphs")
        bundle = bundle.quantized()
    spec = bundle.manifest.networks[name]
    engine = builder.build(bundle.path(name), spec, device, precision, Watched())
    stored = bundle.path(name).stat().st_size  # the file has its weights in float16 or int8
    assert len(engine) > stored


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
@pytest.mark.skipif(not no_gpu, reason="there is a GPU")
def test_without_a_gpu_its_capability_must_be_named(builder: interface.Builder) -> None:
    with pytest.raises(BackendError, match=r"no GPU here .*name one with --compute-capability"):
        builder.devices([])


@pytest.mark.skipif(not no_gpu, reason="there is a GPU")
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_running_without_a_gpu_is_refused(name: str) -> None:
    with pytest.raises(BackendError, match=rf"'{name}' finds no GPU"):
        backends.select(name, precision="fp16")


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
        with pytest.raises(EngineError, match=f"run: magicfuse build .* --backend {name}"):
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
