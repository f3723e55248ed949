# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Finding, loading and querying libcudart, with libraries that are really compiled."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from magicfuse_ros.backends import cudart
from magicfuse_ros.backends.cuda import missing_device
from magicfuse_ros.errors import BackendError, DeviceLostError

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
_ANSWERS = """
#include <stdlib.h>
int cudaDriverGetVersion(int *v) { *v = DRIVER; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = RUNTIME; return 0; }
static int once(void) { static int s = -1; return s < 0 ? s = getenv("GPU") ? 0 : 100 : s; }
int cudaGetDeviceCount(int *n) { *n = STATUS ? -1 : COUNT; return STATUS; }
const char *cudaGetErrorName(int s) { return "cudaErrorOfTest"; }
const char *cudaGetErrorString(int s) { return "what it means"; }
int cudaMalloc(void **p, size_t n) { *p = (void *)0x7fff12345678; return n > 9 ? (int)n : 0; }
"""


def library(folder: Path, name: str, **answers: int | str) -> str:
    """Compile a libcudart that gives these answers; return its path."""
    answers = {"DRIVER": 12040, "RUNTIME": 12060, "STATUS": 0, "COUNT": 1, **answers}
    others = set(cudart._SIGNATURES) - {
        line.split("(")[0].split()[-1] for line in _ANSWERS.split("\n")[2:] if line
    }
    source = folder / "cudart.c"
    source.write_text(
        _ANSWERS + "".join(f"int {f}(void) {{ return 0; }}\n" for f in sorted(others))
    )
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [f"-D{key}={value}" for key, value in answers.items()]
    command = [str(COMPILER), "-shared", "-fPIC", "-w", *options, "-o", str(path), str(source)]
    subprocess.run(command, check=True)
    return str(path)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that lists the installed libraries."""

    def set_paths(*paths: str) -> None:
        monkeypatch.setattr(cudart, "_loaded", [])
        monkeypatch.setattr(cudart, "_asked", {})
        monkeypatch.setattr(cudart, "_candidates", lambda: iter(paths))

    return set_paths


@needs_compiler
@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"COUNT": 1}, ""),
        ({"STATUS": 100}, "the NVIDIA driver sees no GPU: none is there, its kernel module is"),
        ({"COUNT": 0}, "the NVIDIA driver sees no GPU"),
        ({"STATUS": 35, "DRIVER": 0}, "no NVIDIA driver is loaded"),
        (
            {"STATUS": 35, "DRIVER": 12060, "RUNTIME": 13000},
            r"driver is too old: it serves CUDA 12\.6, '.*' is of CUDA 13\.0; update the driver, "
            "or pip install nvidia-cuda-runtime-cu12$",
        ),
        (
            {"STATUS": 35, "DRIVER": 11040},
            r"driver is too old: it serves CUDA 11\.4, '.*' is of CUDA 12\.6; update the driver$",
        ),
        ({"STATUS": 304}, r"cudaErrorOfTest \(304\): what it means$"),
        ({"STATUS": 34}, r"\(34\): what it means; LD_LIBRARY_PATH leads to a folder 'stubs'"),
        ({"STATUS": 46}, r"\(46\): what it means; another process has the GPU for itself"),
        ({"STATUS": 803}, r"\(803\): what it means; .* restart the machine after a driver update"),
        ({"STATUS": 804}, r"\(804\): what it means; take the folder 'compat' of CUDA out of LD_L"),
        ({"STATUS": 999}, r"\(999\): what it means; after a suspend: .* in the group video$"),
    ],
)
def test_what_is_missing_is_told_apart(
    tmp_path: Path, found: Any, answers: dict[str, int], reason: str
) -> None:
    found(library(tmp_path, "libcudart.so.12", **answers))
    missing = missing_device()
    assert re.search(reason, missing) if reason else not missing


@needs_compiler
def test_the_first_library_that_the_driver_serves_is_taken(tmp_path: Path, found: Any) -> None:
    new = library(tmp_path, "13/libcudart.so.13", STATUS=35, RUNTIME=13000)
    old = library(tmp_path, "12/libcudart.so.12")
    found("libcudart.so.99", new, old)
    runtime, reason = cudart.load()
    assert runtime is not None and runtime.path == old and reason == ""
    assert (runtime.version(), runtime.driver_version()) == ("12.6", "12.4")
    found(new, library(tmp_path, "none/libcudart.so.12", STATUS=100))
    assert "sees no GPU" in missing_device()  # better than a message about an old driver


@needs_compiler
@pytest.mark.fault(
    "the GPU's driver comes after a node has started with a GPU backend",
    "the process exits with code 69, and launch restarts it: CUDA keeps its first answer",
)
def test_a_gpu_that_comes_later_needs_a_new_process(
    tmp_path: Path, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cudart, "_ASK_AGAIN_S", 0.0)
    monkeypatch.delenv("GPU", raising=False)
    found(library(tmp_path, "libcudart.so.12", STATUS="once()"))  # as the real one does
    assert "sees no GPU" in missing_device() and "sees no GPU" in missing_device()
    monkeypatch.setenv("GPU", "1")
    with pytest.raises(DeviceLostError, match="came after this process had looked for it"):
        missing_device()


@needs_compiler
def test_values_are_whole_and_errors_are_named(tmp_path: Path) -> None:
    runtime = cudart.CudaRuntime(library(tmp_path, "libcudart.so.12"))
    assert runtime.get("cudaMalloc", ctypes.c_void_p, 8) == 0x7FFF12345678
    for status, kind in ((35, BackendError), (700, DeviceLostError), (719, DeviceLostError)):
        with pytest.raises(
            BackendError, match=rf"cudaMalloc: cudaErrorOfTest \({status}\): what"
        ) as error:
            runtime.get("cudaMalloc", ctypes.c_void_p, status)
        assert type(error.value) is kind


def test_no_library_or_a_damaged_one_is_said(tmp_path: Path, found: Any) -> None:
    found("libcudart.so.99")
    assert "the CUDA runtime is not installed" in missing_device()
    assert "on a PC, pip install nvidia-cuda-runtime-cu12; on a Jetson, sudo" in missing_device()
    path = tmp_path / "libcudart.so.12"
    path.write_bytes(b"no library")
    found(str(path))
    assert f"the CUDA runtime '{path}' cannot be used: " in missing_device()


@needs_compiler
def test_a_variable_that_hides_the_gpu_is_named(
    tmp_path: Path, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(library(tmp_path, "libcudart.so.12", STATUS=100))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "MIG is on without an instance, or the container" in missing_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert missing_device() == "the NVIDIA driver shows no GPU: CUDA_VISIBLE_DEVICES is '-1'"


def test_a_library_path_that_leads_to_a_file_of_another_kind_is_said(tmp_path: Path) -> None:
    """The loader reads LD_LIBRARY_PATH only when the process starts."""
    for major in cudart.MAJORS:
        (tmp_path / f"libcudart.so.{major}").write_bytes(b"of another machine")
    code = (
        "from magicfuse_ros.backends import cudart; cudart._TOOLKITS = (); "
        "cudart.importlib.util.find_spec = lambda name: None; print(cudart.load()[1])"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert re.match(
        rf"the CUDA runtime 'libcudart\.so\.1\d' cannot be used: {tmp_path}/libcudart\.so\.1\d: ",
        said.stdout,
    ), said.stdout


def test_libraries_are_looked_for_in_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("cuda_runtime/lib/libcudart.so.12", "cu13/lib/libcudart.so.13"):
        path = tmp_path / "nvidia" / file
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = list(cudart._candidates())
    assert str(tmp_path / "nvidia/cu13/lib/libcudart.so.13") in paths
    assert str(tmp_path / "nvidia/cuda_runtime/lib/libcudart.so.12") in paths


def test_real_libraries_have_all_functions_and_know_their_errors() -> None:
    runtimes = []
    for path in cudart._candidates():
        with suppress(OSError):
            runtimes.append(cudart.CudaRuntime(path))
    for runtime in runtimes:
        assert int(runtime.version().split(".")[0]) in cudart.MAJORS
        assert runtime.describe(35).startswith("cudaErrorInsufficientDriver (35): ")
        assert runtime.describe(100).startswith("cudaErrorNoDevice (100): ")
        known = [runtime.describe(status) for status in cudart._LOST - {226, 721}]  # newer statuses
        assert all(text.startswith("cudaError") for text in known)
    if not runtimes:
        pytest.skip("no libcudart here")
