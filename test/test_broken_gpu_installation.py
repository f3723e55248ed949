# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What an owner of a GPU is told if its library, driver and engines do not fit together.

`auto` takes the CPU and says why; a backend that was asked for is never replaced. Each reason is
one line. See test_cudart.py for what the CUDA runtime itself says.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from cuda_stand_in import Library
from magicfuse_ros import backends
from magicfuse_ros.backends.engine_cache import EngineCache, EngineKey
from magicfuse_ros.backends.tensorrt_library import RTX
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import BackendError, EngineError

# The part of both libraries that is needed to see whether a bundle's engines are there.

pytestmark = pytest.mark.usefixtures("own_cache")

_LIBRARY = """
__version__ = "{version}"
class ComputeCapability:
    __members__ = {{"SM75": 1, "SM86": 2, "SM89": 3, "SM120": 4}}
class ILogger:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"
class Runtime:
    def __init__(self, log):
        {start}
"""
_STARTS = "pass"
# What pybind11 does if createInferRuntime returns a null pointer.
_REFUSES = (
    'log.log("warning", "CUDA initialization failure with error: 35.\\n Please check");'
    'raise TypeError("pybind11::init(): factory function returned nullptr")'
)

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Library) -> Iterator[Install]:
    """Yield a function that installs a library; there is a GPU, an RTX 40 with CUDA 12.8."""

    def write(name: str, source: str = "", version: str = "10.3.0", start: str = _STARTS) -> Path:
        monkeypatch.delitem(sys.modules, name)
        path = tmp_path / "packages" / name / "__init__.py"
        path.parent.mkdir(parents=True)
        path.write_text(source or _LIBRARY.format(version=version, start=start))
        return path

    def wheels(name: str) -> str:
        raise PackageNotFoundError(name)

    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)  # not installed
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages"), *sys.path])
    monkeypatch.setattr(importlib.metadata, "version", wheels)
    yield write
    for name in ("tensorrt", "tensorrt_rtx"):
        sys.modules.pop(name, None)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def refusals(name: str, bundle: Bundle) -> tuple[str, str]:
    """Return the reasons of `auto`, which takes the CPU, and of the named backend."""
    choice = backends.choose("auto", bundle=bundle)
    assert choice.used == "openvino"
    with pytest.raises(BackendError) as error:
        backends.select(name, bundle=bundle).load(
            bundle.path("ckg"), bundle.manifest.networks["ckg"]
        )
    return choice.why, str(error.value)


def told(texts: tuple[str, str], *parts: str) -> bool:
    """Return whether every text is one line that contains all the parts."""
    return all("\n" not in text and all(part in text for part in parts) for text in texts)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('raise ImportError("libnvinfer.so.10: cannot open shared\\n object file")', "libnvinfer"),
        ('raise OSError("wrong ELF class")', "wrong ELF class"),
        ('raise RuntimeError("module was compiled against numpy 2")', "against numpy 2"),
        ("x = 1", "no attribute '__version__'"),
        ('__version__ = "unknown"', "'unknown'"),
    ],
)
def test_a_library_that_cannot_be_imported_is_named_with_its_place(
    install: Install, bundle: Bundle, source: str, reason: str
) -> None:
    path = install("tensorrt", source)
    assert told(
        refusals("tensorrt", bundle), "the Python module 'tensorrt'", str(path.parent), reason
    )


def test_a_folder_of_that_name_is_no_library(install: Install, bundle: Bundle) -> None:
    path = install("tensorrt", " ")
    path.unlink()
    assert told(refusals("tensorrt", bundle), str(path.parent), "cannot be used: ")


def test_jetpack_6_0_is_too_old(install: Install, bundle: Bundle) -> None:
    install("tensorrt", version="8.6.2")
    assert told(
        refusals("tensorrt", bundle),
        "release 8.6.2; expected 10.3 or later",
        "JetPack 6.1 or later",
    )


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_a_library_for_a_newer_cuda_than_the_driver_serves_is_refused(
    install: Install, bundle: Bundle, runtime: Library, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An RTX with a driver 550 or 570 after `pip install tensorrt-rtx`, which is for CUDA 13."""
    install(name, version="10.16.0")
    wheels = {f"{name}_cu13_libs"}

    def version(distribution: str) -> str:
        if distribution not in wheels:
            raise PackageNotFoundError(distribution)
        return "1.7.1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    pip = name.replace("_", "-")
    assert told(
        refusals(name, bundle),
        f"{pip} here is made for CUDA 13, and the NVIDIA driver serves CUDA 12.8: update the",
        f"pip uninstall {pip} {pip}-cu13 {pip}-cu13-libs {pip}-cu13-bindings; pip install "
        f"{pip}-cu12",
    )
    wheels.add(f"{name}_cu12_libs")  # it was installed over the other
    assert "has no engines" in backends.choose("auto", bundle=bundle).why
    wheels.remove(f"{name}_cu12_libs")
    runtime.driver = 13000
    assert "has no engines" in backends.choose("auto", bundle=bundle).why


def test_engines_for_one_cuda_are_not_those_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    releases = []
    for installed in ("cu12", "cu13"):

        def version(distribution: str, only: str = installed) -> str:
            if only not in distribution:
                raise PackageNotFoundError(distribution)
            return "1.7.1"

        monkeypatch.setattr(importlib.metadata, "version", version)
        releases.append(RTX.release(SimpleNamespace(__version__="1.7.1")))
    assert releases == ["1.7.1 cu12", "1.7.1 cu13"]


def test_a_library_that_cannot_start_gives_its_own_reason(install: Install, bundle: Bundle) -> None:
    install("tensorrt", start=_REFUSES)
    with pytest.raises(
        BackendError,
        match=r"^tensorrt cannot start: CUDA initialization failure with error: 35\. Please check$",
    ):
        backends.select("tensorrt", bundle=bundle)


def test_a_gpu_that_the_library_has_no_engines_for_is_named(
    install: Install, bundle: Bundle, runtime: Library
) -> None:
    install("tensorrt_rtx", version="1.7.1")
    runtime.capability = (9, 0)
    assert told(
        refusals("tensorrt_rtx", bundle),
        "compute capability of Test GPU is 9.0; tensorrt_rtx builds for 7.5, 8.6, 8.9, 12.0",
    )


def test_a_damaged_engine_is_no_engine(install: Install, bundle: Bundle) -> None:
    install("tensorrt")
    cache = EngineCache()
    for spec in bundle.manifest.networks.values():
        key = EngineKey.of(spec, "tensorrt", "10.3.0", "sm_89 Test GPU, 24 multiprocessors", "fp16")
        path = cache.store(key, b"an engine")
    assert backends.choose("auto", bundle=bundle).used == "tensorrt"
    path.write_bytes(b"an eNgine")
    choice = backends.choose("auto", bundle=bundle)
    assert choice.used == "openvino"
    assert f"'{path}' was changed or damaged: " in choice.why
    assert f"magicfuse build '{bundle.root}' --backend tensorrt --precision fp16" in choice.why
    name = next(n for n, s in bundle.manifest.networks.items() if path.name.startswith(s.file[:-5]))
    with pytest.raises(EngineError, match=r"was changed or damaged: .*; run: .*magicfuse build "):
        backends.select("tensorrt").load(bundle.path(name), bundle.manifest.networks[name])


def test_engines_of_another_gpu_or_release_are_named(install: Install, bundle: Bundle) -> None:
    install("tensorrt")
    cache = EngineCache()
    for spec in bundle.manifest.networks.values():
        key = EngineKey.of(spec, "tensorrt", "10.3.0", "sm_87 Orin", "fp16")
        cache.store(key, b"an engine")
    assert told(
        refusals("tensorrt", bundle),
        "for sm_89 Test GPU, 24 multiprocessors in fp16",
        "device sm_87 Orin, now sm_89 Test",
    )


def test_engines_without_their_gpu_are_a_warning(
    install: Install, bundle: Bundle, runtime: Library
) -> None:
    """After a cold boot, the driver may be ready only after the node has chosen the CPU."""
    install("tensorrt")
    runtime.count = 0
    assert backends.choose("auto", bundle=bundle).warning == ""
    for spec in bundle.manifest.networks.values():
        key = EngineKey.of(spec, "tensorrt", "10.3.0", "sm_87 Orin", "fp16")
        EngineCache().store(key, b"an engine")
    choice = backends.choose("auto", bundle=bundle)
    assert choice.used in ("openvino", "onnxruntime")
    assert "tensorrt has engines of this bundle, but finds no GPU" in choice.warning
