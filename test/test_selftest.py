# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse build --check` and `magicfuse doctor`: what they report, and what passes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from cli_run import magicfuse
from cuda_stand_in import Library
from magicfuse_ros import backends, selftest
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.backends.interface import Network, Tensor
from magicfuse_ros.backends.onnx_passes import fold_constants, half_body, uint8_at_borders
from magicfuse_ros.backends.onnxruntime import OnnxRuntimeBackend
from magicfuse_ros.bench import gpu
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkSpec
from magicfuse_ros.selftest import Row, SelftestLimits, check, decibels, reference_for

Array = npt.NDArray[Any]


class Half(OnnxRuntimeBackend):
    """Runs on the CPU the graphs that TensorRT gets in fp16."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1)
        self.precision: Precision = "fp16"
        self._folder = folder

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        made = self._folder / path.name
        onnx.save(half_body(uint8_at_borders(fold_constants(onnx.load(path)), path.name)), made)
        return super().load(made, spec)


class Wrong(OnnxRuntimeBackend):
    """Changes one output of one network."""

    def __init__(self, network: str, output: str, change: Callable[[Array], Array]) -> None:
        super().__init__(1)
        self._wrong = network, output, change

    def load(self, path: Path, spec: NetworkSpec) -> Network:
        network, (name, output, change) = super().load(path, spec), self._wrong
        if path.stem != name:
            return network

        def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            outputs = network(inputs)
            return {**outputs, output: change(outputs[output])}

        return call


def compare(bundle: Path, backend: Any) -> dict[str, Row]:
    rows = check(Bundle.load(bundle), backend, reference_for(backend.name))
    return {row.what: row for row in rows}


def test_a_right_backend_passes_in_each_precision(
    tiny_bundle: Path, tiny_int8_bundle: Path, tmp_path: Path
) -> None:
    for folder, backend in (
        (tiny_bundle, backends.select("onnxruntime", 1)),
        (tiny_bundle, Half(tmp_path)),
    ):
        rows = compare(folder, backend)
        assert list(rows) == [*NETWORKS, "frame"]
        assert all(row.passed and row.ms > 0 for row in rows.values()), rows
        assert {name for name, row in rows.items() if row.labels} == {"segmentation", "frame"}
    rows = compare(tiny_int8_bundle, backends.select("openvino", 1, "int8"))
    assert 20 < rows["frame"].db < 70


def not_a_number(array: Array) -> Array:
    array = array.copy()
    array.ravel()[5] = np.nan
    return array


@pytest.mark.parametrize(
    ("network", "output", "change"),
    [
        ("ckg", "eps", not_a_number),
        ("ikr", "x0", lambda a: a * np.float32(1.1)),
        ("mkf", "z_next", np.zeros_like),
        ("segmentation", "mask", lambda a: (a + 1) % 3),
        ("decoder", "image", lambda a: a[:, ::-1]),
    ],
)
def test_a_wrong_network_is_found_and_named(
    tiny_bundle: Path, network: str, output: str, change: Callable[[Array], Array]
) -> None:
    rows = compare(tiny_bundle, Wrong(network, output, change))
    failed = [name for name, row in rows.items() if not row.passed]
    assert failed[0] == network and not {*NETWORKS} & {*failed[1:]}
    if output != "mask":
        assert rows[network].worst == output


def test_decibels_are_of_the_references_range() -> None:
    wanted = np.array([0.0, 10.0], np.float32)
    assert decibels(wanted + np.float32(0.1), wanted) == pytest.approx(40)
    codes = np.array([7, 7], np.uint8)
    assert decibels(codes + np.uint8(1), codes) == pytest.approx(48.13, abs=0.01)
    assert decibels(codes, codes) == float("inf")
    assert decibels(np.array([0.0, np.inf], np.float32), wanted) == float("-inf")


def test_build_check_prints_what_an_issue_needs_and_fails_below_its_limits(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("build", tiny_bundle, "--backend", "openvino", "--check")
    result = magicfuse(*command)
    assert result.exit_code == 0, result.output
    _, block, _ = result.stdout.split("```")
    assert block.startswith("text\ntiny (")
    for word in (*NETWORKS, "frame", " ms ", " dB ", "all within them", "CPU", "Python", "MB of"):
        assert word in block, word
    monkeypatch.setitem(selftest.LIMITS, "fp32", SelftestLimits(500, 1.0))
    result = magicfuse(*command)
    assert result.exit_code == 1
    assert "TOO FAR: encoder, " in result.stdout


def test_the_doctor_says_what_can_run_and_what_is_missing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = magicfuse("doctor", tiny_bundle)
    assert result.exit_code == 0, result.output
    for line in (r"numpy", r"ROS", r"  openvino +can run", r"  tensorrt +finds no GPU \("):
        assert re.search(line, result.stdout), line
    assert "openvino" in result.stdout.split("auto\n")[1] and " ms, K = " in result.stdout
    result = magicfuse("doctor", tmp_path)
    assert result.exit_code == 1 and "cannot be used: " in result.stdout
    misfit = shutil.copytree(tiny_bundle, tmp_path / "misfit")
    manifest = (misfit / "bundle.json").read_text()
    (misfit / "bundle.json").write_text(manifest.replace('"z_seg"', '"z_segg"'))
    result = magicfuse("doctor", misfit)
    assert result.exit_code == 1
    assert "z_seg" in result.stdout.split("auto\n")[1] and "numpy" in result.stdout
    monkeypatch.setattr(backends, "_obstacle", lambda *given: "is not installed")
    result = magicfuse("doctor", tiny_bundle)
    assert result.exit_code == 1
    assert "no inference backend can run here: tensorrt_rtx is not installed" in result.stdout


def test_the_gpu_is_described(
    runtime: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MODE_15W'\necho 2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n")
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n"
    )
    monkeypatch.setattr(gpu, "_L4T", release)
    monkeypatch.setattr(gpu, "_DRIVER", version)
    found, reason = gpu.find_gpu()
    assert found is not None and reason == ""
    assert (found.name, found.compute_capability, found.memory_mb) == ("Test GPU", "8.9", 256)
    assert (found.driver, found.driver_cuda, found.power_mode) == ("540.4.0", "12.8", "MODE_15W")
    assert found.runtime.startswith("12.6 (libcudart.so") and found.jetpack == "L4T 36.4.3"
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert gpu.power_mode() == gpu.UNKNOWN
    runtime.count = 0
    monkeypatch.setattr("magicfuse_ros.backends.cudart._loaded", [])
    assert gpu.find_gpu()[0] is None and "sees no GPU" in gpu.find_gpu()[1]
