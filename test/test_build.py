# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse build` from a user's view."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_run import magicfuse
from magicfuse_ros import backends
from magicfuse_ros.backends import interface
from magicfuse_ros.backends.engine_cache import (
    EngineCache,
    EngineManifest,
    Precision,
    cache_folder,
)


class Library:
    """A builder whose engines tell what they are made of."""

    name = "tensorrt_rtx"
    version = "1.0"
    delay = 0.0

    def devices(self, compute_capabilities: list[str]) -> list[str]:
        return [f"sm_{c.replace('.', '')}" for c in compute_capabilities or ["8.9"]]

    def build(
        self, path: Path, spec: object, device: str, precision: str, monitor: interface.BuildMonitor
    ) -> bytes:
        for part in range(10):
            monitor.step("timing", part, 10)
            if monitor.cancelled:
                break
            time.sleep(self.delay)
        return f"{path.name} {device} {precision} {self.version}".encode()


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()

    def builder(name: str, precision: Precision) -> Library:
        return library

    monkeypatch.setattr(backends, "builder", builder)
    return library


def manifests() -> list[EngineManifest]:
    paths = sorted(EngineCache().root.glob("*/*.json"))
    return [EngineManifest.model_validate_json(path.read_bytes()) for path in paths]


def test_each_engine_is_built_once_and_kept(tiny_bundle: Path, library: Library) -> None:
    command = (tiny_bundle, "--backend", "tensorrt_rtx", "--precision", "fp16")
    result = magicfuse("build", *command)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("built") == 6 and str(EngineCache().root) in result.stdout
    assert len(manifests()) == 6
    again = magicfuse("build", *command)
    assert again.stdout.count("up to date") == 6


def test_engines_that_are_there_need_no_writable_cache(tiny_bundle: Path, library: Library) -> None:
    command = (tiny_bundle, "--backend", "tensorrt_rtx")
    assert magicfuse("build", *command).exit_code == 0
    for lock in EngineCache().root.glob("*/*.lock"):
        lock.unlink()
        lock.mkdir()  # root may write anything else
    again = magicfuse("build", *command)
    assert again.exit_code == 0 and again.stdout.count("up to date") == 6, again.output


@pytest.mark.parametrize(
    "capabilities",
    [
        ("--compute-capability", "8.6", "8.9", "12.0"),
        ("--compute-capability", "8.6", "--compute-capability", "8.9", "12.0"),
    ],
)
def test_one_engine_for_each_compute_capability(
    tiny_bundle: Path, library: Library, capabilities: tuple[str, ...]
) -> None:
    for command in (
        (*capabilities, tiny_bundle, "--backend", "tensorrt_rtx"),
        (tiny_bundle, "--backend", "tensorrt_rtx", *capabilities),
    ):
        result = magicfuse("build", *command)
        assert result.exit_code == 0, result.output
        assert len(manifests()) == 18
        assert {m.key.device for m in manifests()} == {"sm_86", "sm_89", "sm_120"}


def test_what_changed_is_rebuilt_and_the_reason_is_given(
    tiny_bundle: Path, library: Library
) -> None:
    command = (tiny_bundle, "--backend", "tensorrt_rtx")
    assert magicfuse("build", *command).exit_code == 0
    (engine,) = EngineCache().root.glob("*/ckg-*.engine")
    engine.write_bytes(engine.read_bytes()[:-1])
    result = magicfuse("build", *command)
    assert "ckg: rebuilt: " in result.stderr and "is damaged" in result.stderr
    assert (result.stdout.count("up to date"), result.stdout.count("built")) == (5, 1)
    library.version = "2.0"
    result = magicfuse("build", *command)
    assert result.stderr.count("version 1.0, now 2.0") == result.stdout.count("built") == 6
    engine.with_suffix(".json").unlink()
    engine.unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "onnxruntime"), "error: backend 'onnxruntime' has nothing to build"),
        (("--backend", "cuda"), "error: backend 'cuda' is not known"),
        (("--backend", "openvino", "--precision", "int8"), "has no int8 graphs"),
        (("--backend", "openvino", "--precision", "fp8"), "has no precision 'fp8'; expected one"),
        (("--backend", "openvino", "--compute-capability", "8.6"), "builds for the CPU"),
    ],
)
def test_an_error_is_one_line(tiny_bundle: Path, arguments: tuple[str, ...], message: str) -> None:
    result = magicfuse("build", tiny_bundle, *arguments, COLUMNS="40")
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("backend", "message"),
    [("tensorrt_rtx", "cannot write"), ("openvino", "compiled networks cannot be kept in")],
)
def test_a_cache_that_cannot_be_written_is_one_line(
    tiny_bundle: Path, library: Library, tmp_path: Path, backend: str, message: str
) -> None:
    (tmp_path / "file").write_text("")
    cache = str(tmp_path / "file")
    result = magicfuse("build", tiny_bundle, "--backend", backend, MAGICFUSE_CACHE=cache)
    assert result.exit_code == 2 and f"error: {message}" in result.stderr


_SLOW = """
import sys
sys.path[:0] = {path!r}
from magicfuse_ros import backends
from magicfuse_ros.cli import app
from test_build import Library
library = Library()
library.delay = 0.2
backends.builder = lambda name, precision: library
app()
"""


def test_ctrl_c_ends_the_build_with_one_line_and_leaves_nothing_half_written(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    code = _SLOW.format(path=[str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", code, "build", str(tiny_bundle), "--backend", "tensorrt_rtx"]
    environment = {**os.environ, "MAGICFUSE_CACHE": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("engines/*/ikr-*.lock")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    *told, last = errors.splitlines()[1:]
    assert last == "interrupted; engines that were already finished are kept"
    assert told and all(line.endswith(", which may take minutes") for line in told)
    names = sorted(p.name.partition("-")[0] for p in tmp_path.glob("engines/*/*") if p.suffix)
    assert [n for n in names if not n.startswith(".")].count("encoder") == 3
    suffixes = {p.suffix for p in tmp_path.glob("engines/*/ikr-*")}
    assert suffixes == {".lock"}


def test_openvino_is_really_compiled_and_loaded(
    tiny_int8_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By default in both precisions; a bundle elsewhere with the same networks finds them."""
    result = magicfuse("build", tiny_int8_bundle, "--backend", "openvino")
    assert result.exit_code == 0, result.output
    for precision in ("fp32", "int8"):
        assert f" in {precision}: 7 networks compiled, 0 up to date" in result.stdout
    (folder,) = (cache_folder() / "openvino").iterdir()
    assert result.stdout.splitlines()[-1] == f"in {folder}"
    bundle = shutil.copytree(tiny_int8_bundle, tmp_path / "bundle")
    again = magicfuse("build", bundle, "--backend", "openvino", "--precision", "int8")
    assert " in int8: 0 networks compiled, 7 up to date" in again.stdout
    assert not caplog.text
