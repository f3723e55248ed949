# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""TensorRT's runtime without the library: stand-in engines copy data on the device.

A stand-in network fills its outputs with the fronts of all its inputs, one after the other,
repeatedly. On the host, numpy does the same: whole frames must be equal byte for byte.
"""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from magicfuse_ros import backends
from magicfuse_ros.backends import cudart, tensorrt_engine, tensorrt_library
from magicfuse_ros.backends.engine_cache import EngineCache, EngineKey, Precision, read_checked
from magicfuse_ros.backends.host import HostBackend
from magicfuse_ros.backends.interface import Network, Tensor
from magicfuse_ros.backends.tensorrt_engine import EngineBackend, missing_engine
from magicfuse_ros.backends.tensorrt_library import Library
from magicfuse_ros.backends.tensorrt_log import logger
from magicfuse_ros.bench import gpu_peak
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkSpec, TensorSpec
from magicfuse_ros.errors import BackendError
from magicfuse_ros.outputs import OUTPUTS, Output
from magicfuse_ros.sampler import Sampler

pytestmark = pytest.mark.usefixtures("own_cache")

ALL = frozenset(OUTPUTS)


def parts(spec: NetworkSpec, output: TensorSpec) -> list[tuple[str, int, int]]:
    """Return (input, offset in the output, bytes)."""
    size = nbytes(output)
    length = size // len(spec.inputs)
    result: list[tuple[str, int, int]] = []
    offset = 0
    for tensor in itertools.cycle(spec.inputs):
        if offset == size:
            return result
        result.append((tensor.name, offset, min(nbytes(tensor), length, size - offset)))
        offset += result[-1][2]
    raise AssertionError("a network without inputs")


def nbytes(tensor: TensorSpec) -> int:
    return int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize


class OnHost(HostBackend):
    name = version = "host"
    device = "CPU"
    precision: Precision = "fp32"

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            results = {}
            for output in spec.outputs:
                data = np.zeros(nbytes(output), np.uint8)
                for name, offset, size in parts(spec, output):
                    data[offset : offset + size] = inputs[name].view(np.uint8).ravel()[:size]
                results[output.name] = data.view(output.dtype).reshape(output.shape)
            return results

        return run

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        return np.asarray(tensor)


class Context:
    """Stand-in for an execution context."""

    calls = 0
    accepts = True

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        Context.calls += 1
        for output in self.spec.outputs:
            for name, offset, size in parts(self.spec, output):
                target = self.addresses[output.name] + offset
                cuda, source = cudart.load()[0], self.addresses[name]
                assert cuda is not None
                cuda.call("cudaMemcpyAsync", target, source, size, cudart.COPY_ON_DEVICE, stream)
        return Context.accepts


class Logger:
    """Stand-in for `ILogger`."""

    ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"


class RuntimeCache:
    """Stand-in for the code that TensorRT for RTX compiles on the machine, for one GPU."""

    gpu = b"RTX 4060"
    loaded = 0

    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, content: bytes) -> bool:
        if not content.startswith(self.gpu):
            return False
        RuntimeCache.loaded += 1
        self.content = content
        return True

    def serialize(self) -> bytes:
        return self.gpu + b" code"  # it is compiled by now


class StandIn(Library):
    """Stand-in for TensorRT; an engine is the JSON of a network's spec."""

    def load(self, *, to_build: bool = False) -> Any:
        def runtime_config() -> Any:
            return SimpleNamespace(
                create_runtime_cache=RuntimeCache, set_runtime_cache=lambda cache: True
            )

        def engine(data: bytes) -> Any:
            if not Context.accepts:
                logger(module).log("error", "the engine plan\n is of another platform")
                return None
            spec = NetworkSpec.model_validate_json(data)
            tensors = {t.name: t for t in (*spec.inputs, *spec.outputs)}
            inputs = {t.name for t in spec.inputs}
            return SimpleNamespace(
                num_io_tensors=len(tensors),
                get_tensor_name=list(tensors).__getitem__,
                get_tensor_dtype=lambda name: tensors[name].dtype,
                get_tensor_shape=lambda name: tensors[name].shape,
                get_tensor_mode=lambda name: "input" if name in inputs else "output",
                create_execution_context=lambda config=None: Context(spec),
                create_runtime_config=runtime_config,
            )

        module = ModuleType(self.name)
        module.__dict__.update(
            __version__="10.3",
            ILogger=Logger,
            Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=engine),
            TensorIOMode=SimpleNamespace(INPUT="input"),
            ComputeCapability=SimpleNamespace(__members__={"SM86": 0, "SM89": 1, "CURRENT": 2}),
            nptype=np.dtype,
        )
        return module


@pytest.fixture
def bundle(tiny_uncertain_bundle: Path) -> Bundle:
    return Bundle.load(tiny_uncertain_bundle)


TENSORRT = StandIn("tensorrt", oldest=(10, 3), update="", portable=False)
RTX = StandIn("tensorrt_rtx", oldest=(1, 2), update="", portable=True)


def build(bundle: Bundle, library: Library, gpu: Any) -> None:
    """Store the stand-ins of all engines."""
    for spec in bundle.manifest.networks.values():
        trt = library.load()
        version, of = library.release(trt), library.device(trt, gpu)
        key = EngineKey.of(spec, library.name, version, of, "fp32")
        EngineCache().store(key, spec.model_dump_json().encode())


@pytest.fixture
def backend(bundle: Bundle, device: Any, monkeypatch: pytest.MonkeyPatch) -> EngineBackend:
    """Return the backend with all engines built."""
    monkeypatch.setattr(Context, "calls", 0)
    monkeypatch.setattr(Context, "accepts", True)
    backend = EngineBackend(TENSORRT, "fp32")
    build(bundle, TENSORRT, device)
    return backend


def some_image(number: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (1, 64, 96, 3), np.uint8)


def test_frames_have_the_bytes_of_the_same_networks_on_the_host(
    bundle: Bundle, backend: EngineBackend
) -> None:
    sampler, on_host = Sampler(bundle, backend), Sampler(bundle, OnHost())
    plans: list[tuple[frozenset[Output], int]] = [
        (ALL, 1),
        (ALL, 2),
        (frozenset({"mag_image", "mask"}), 2),
        (frozenset({"restored"}), 1),
        (frozenset({"thermal_uncertainty"}), 1),
    ]
    seen = set()
    for number in range(3):  # the first frame records; the others replay, in turn
        for outputs, steps in plans:
            for tau in (0.2, 0.7):
                image = some_image(number)
                sample = sampler.sample(image, outputs, steps, tau)
                expected = on_host.sample(image, outputs, steps, tau)
                for name in OUTPUTS:
                    actual, wanted = getattr(sample, name), getattr(expected, name)
                    assert (actual is None) == (wanted is None)
                    if wanted is not None:
                        np.testing.assert_array_equal(actual, wanted, err_msg=name)
                if sample.mag_image is not None:
                    seen.add(sample.mag_image.tobytes())
                ran = {n for n, ms in expected.stages_ms.items() if ms > 0}
                assert {n for n, ms in sample.stages_ms.items() if ms > 0} == ran
    assert len(seen) == 3 * 2 * 2  # image, K and tau: each made a difference


def test_networks_are_called_only_while_a_kind_of_frame_is_recorded(
    bundle: Bundle, backend: EngineBackend
) -> None:
    sampler = Sampler(bundle, backend)
    for tau in (0.1, 0.2, 0.3):
        sampler.sample(some_image(0), ALL, 1, tau)
    assert Context.calls == 2 * (len(NETWORKS) + 2)  # three decoders; to warm up, and to record
    sampler.sample(some_image(0), ALL, 2, 0.4)
    assert Context.calls == 2 * (len(NETWORKS) + 2) + 2 * (len(NETWORKS) + 2 + 3)
    before = Context.calls
    thermal: tuple[Output, ...] = ("thermal_estimate", "thermal_uncertainty")
    for outputs in (thermal[:1], thermal[1:], thermal):  # all replay the same record
        sampler.sample(some_image(0), frozenset(outputs), 1, 0.4)
    assert Context.calls == before + 2 * 3  # encoder, ckg, decoder


def test_a_call_that_the_engine_does_not_accept_names_the_network(
    bundle: Bundle, backend: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(bundle, backend)
    with monkeypatch.context() as broken:
        broken.setattr(Context, "accepts", False)
        with pytest.raises(
            BackendError, match=r"'encoder\.onnx': the GPU did not accept the call: "
        ):
            sampler.sample(some_image(0), ALL, 1, 0.4)
    sample = sampler.sample(some_image(0), ALL, 1, 0.4)
    expected = Sampler(bundle, OnHost()).sample(some_image(0), ALL, 1, 0.4)
    np.testing.assert_array_equal(sample.mag_image, expected.mag_image)


def test_an_engine_that_the_library_refuses_is_an_error_with_its_reason(
    bundle: Bundle, backend: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "accepts", False)
    spec, path = bundle.manifest.networks["ckg"], bundle.path("ckg")
    with pytest.raises(BackendError, match=r"'ckg\.onnx': .*: the engine plan is of another plat"):
        backend.load(path, spec)


def test_what_was_compiled_for_this_gpu_is_kept_for_the_next_start(
    bundle: Bundle, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, RTX, device)

    def start() -> int:
        """Load and fuse once; return the number of engines that found their code."""
        monkeypatch.setattr(RuntimeCache, "loaded", 0)
        sampler = Sampler(bundle, EngineBackend(RTX, "fp32"))
        sampler.sample(some_image(0), ALL, 1, 0.4)
        return RuntimeCache.loaded

    def kept() -> list[bytes]:
        return [read_checked(path) for path in EngineCache().root.glob("*/*.compiled")]

    assert start() == 0 and kept() == [b"RTX 4060 code"] * len(NETWORKS)
    assert start() == len(NETWORKS)
    monkeypatch.setattr(RuntimeCache, "gpu", b"RTX 5090")  # the card was replaced
    assert start() == 0 and kept() == [b"RTX 5090 code"] * len(NETWORKS)


def test_compiled_code_lives_as_long_as_the_networks_that_use_it(
    bundle: Bundle, device: Any
) -> None:
    build(bundle, RTX, device)
    backend = EngineBackend(RTX, "fp32")

    def alive() -> int:
        return sum(isinstance(thing, RuntimeCache) for thing in gc.get_objects())

    networks = [backend.load(bundle.path("ckg"), bundle.manifest.networks["ckg"]) for _ in range(2)]
    assert alive() == 2
    for left in (1, 0):
        networks.pop()
        assert alive() == left


def test_compiled_code_that_is_damaged_never_reaches_the_library(
    bundle: Bundle, device: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build(bundle, RTX, device)

    def start() -> None:
        Sampler(bundle, EngineBackend(RTX, "fp32")).sample(some_image(0), ALL, 1, 0.4)

    start()
    path, *others = EngineCache().root.glob("*/*.compiled")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"X")
    monkeypatch.setattr(RuntimeCache, "loaded", 0)
    start()
    assert RuntimeCache.loaded == len(others)
    assert f"'{path}' is not used: it was changed or damaged" in caplog.text
    assert path.read_bytes() == whole  # the next start reads it again


def test_a_cache_that_cannot_be_written_is_said_once_and_frames_go_on(
    bundle: Bundle, device: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build(bundle, RTX, device)

    def full(path: Path, content: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tensorrt_engine, "write_checked", full)
    sampler = Sampler(bundle, EngineBackend(RTX, "fp32"))
    for steps in (1, 2):  # two records
        assert sampler.sample(some_image(0), ALL, steps, 0.4).mag_image is not None
    (line,) = caplog.messages
    assert "Read-only file system" in line and str(EngineCache().root) in line


def test_the_command_that_builds_engines_is_the_one_that_works_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program() -> str:
        return tensorrt_engine.build_command(Path("/b"), "tensorrt", "fp16").split(" build '/b' ")[
            0
        ]

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/humble")
    assert program() == "ros2 run magicfuse_ros magicfuse"
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    assert program() == "magicfuse"
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/humble")
    (tmp_path / "magicfuse").write_text("")
    (tmp_path / "magicfuse").chmod(0o755)
    assert program() == "magicfuse"


def test_engines_load_in_a_thread_of_their_own_on_the_same_gpu(
    bundle: Bundle, backend: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = threading.local()
    call = type(backend._gpu).call

    def watch(gpu: Any, name: str, *arguments: Any) -> None:
        if name == "cudaSetDevice":
            current.device = arguments
        call(gpu, name, *arguments)

    monkeypatch.setattr(type(backend._gpu), "call", watch)
    deserialize = backend._runtime.deserialize_cuda_engine
    seen: list[Any] = []

    def first_look(data: bytes) -> Any:
        seen.append(getattr(current, "device", None))
        return deserialize(data)

    backend._runtime.deserialize_cuda_engine = first_look
    with ThreadPoolExecutor(1) as pool:
        pool.submit(backend.load, bundle.path("ckg"), bundle.manifest.networks["ckg"]).result()
    assert seen == [(0,)]


def test_engines_of_another_module_with_a_gpu_of_the_same_name_are_missed(
    bundle: Bundle, backend: EngineBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_engine(TENSORRT, bundle, "fp32") == ""
    model = tmp_path / "model"
    monkeypatch.setattr(tensorrt_library, "_DEVICE_TREE_MODEL", model)
    model.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    reason = missing_engine(TENSORRT, bundle, "fp32")
    assert "no engine of encoder.onnx was built for sm_" in reason
    assert "NVIDIA Jetson Orin Nano Developer Kit, " in reason
    assert missing_engine(TENSORRT, bundle, "fp16")


def test_the_peak_is_measured_on_the_gpu_and_built_once(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    class Builder:
        name, version = RTX.name, RTX.release(RTX.load())

        def devices(self, capabilities: list[str]) -> list[str]:
            return [RTX.device(RTX.load(), device)]

        def build(self, path: Path, spec: NetworkSpec, *given: Any) -> bytes:
            built.append(spec.file)
            return spec.model_dump_json().encode()

    monkeypatch.setattr(backends, "builder", lambda name, precision: Builder())
    monkeypatch.setattr(gpu_peak, "SHAPES", ((4, 8, 8), (8, 8, 8)))
    for _ in range(2):
        assert gpu_peak.GpuPeak(EngineBackend(RTX, "fp32")).measure() > 0
    assert built == ["peak_4.onnx", "peak_8.onnx"]
