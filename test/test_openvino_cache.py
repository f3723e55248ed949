# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""OpenVINO's compiled networks, kept for the next start, whatever happens to their files."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset8 as ops

from magicfuse_ros.backends import openvino
from magicfuse_ros.backends.engine_cache import Precision, cache_folder
from magicfuse_ros.backends.openvino import OpenVinoBackend
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.outputs import Output
from magicfuse_ros.sampler import Sampler
from test_backends import Arrays, call, some_inputs

IMAGES: tuple[Output, ...] = ("mag_image", "restored", "mask", "confidence")

pytestmark = pytest.mark.usefixtures("own_cache")


def mkf(folder: Path) -> tuple[Arrays, OpenVinoBackend]:
    """Return what a newly loaded network computes, and its backend."""
    backend, bundle = OpenVinoBackend(threads=1), Bundle.load(folder)
    spec = bundle.manifest.networks["mkf"]
    return call(backend, bundle.path("mkf"), spec, some_inputs(spec, 1)), backend


def equal(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one.keys() | other.keys())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_second_start_compiles_nothing_and_computes_the_same(
    tiny_int8_bundle: Path, caplog: pytest.LogCaptureFixture, precision: Precision
) -> None:
    image = np.random.default_rng(5).integers(0, 256, (1, 64, 96, 3), np.uint8)
    samples = []
    for threads, counts in ((0, (0, 7)), (1, (7, 0))):  # they serve any number of threads
        backend = OpenVinoBackend(threads, precision)
        sampler = Sampler(Bundle.load(tiny_int8_bundle), backend)
        assert (backend.cache.found, backend.cache.stored) == counts
        samples.append(sampler.sample(image, frozenset(IMAGES), 1, 0.4))
    for name in IMAGES:
        np.testing.assert_array_equal(*(getattr(sample, name) for sample in samples))
    assert not caplog.text


def test_another_file_with_the_same_record_is_another_network(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle, backend = Bundle.load(tiny_bundle), OpenVinoBackend(threads=1)
    spec = bundle.manifest.networks["ikr"]
    results = []
    for folder, name in (("one", "ikr"), ("other", "ckg")):
        (tmp_path / folder).mkdir()
        file = Path(shutil.copy(bundle.path(name), tmp_path / folder / "x.onnx"))  # type: ignore[arg-type]
        results.append(call(backend, file, spec, some_inputs(spec, 1)))
    assert not equal(*results)
    assert (backend.cache.found, backend.cache.stored) == (0, 2)


def overwrite(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def run(entry: Path) -> None:
        (blob,) = entry.glob("*.blob")
        blob.chmod(0o600)
        blob.write_bytes(change(blob.read_bytes()))

    return run


def take_over_another(entry: Path) -> None:
    """Put another compiled network, whole and with its checksums, in the place of this one."""
    x = ops.parameter([1], np.float32)
    OpenVinoBackend().cache.compile("other", lambda: ov.Model([ops.exp(x)], [x]), {})
    shutil.rmtree(entry)
    (entry.parent / "other").rename(entry)


@pytest.mark.parametrize(
    "damage",
    [
        overwrite(lambda blob: b""),
        overwrite(lambda blob: blob[: len(blob) // 2]),
        overwrite(lambda blob: bytes(len(blob))),
        overwrite(lambda blob: blob[:-20] + bytes([blob[-20] ^ 1]) + blob[-19:]),
        lambda entry: (entry / "SHA256SUMS").unlink(),
        lambda entry: next(entry.glob("*.blob")).unlink(),
        take_over_another,
    ],
    ids=["empty", "cut", "zeros", "one bit", "no checksums", "no network", "another network"],
)
def test_a_damaged_network_is_compiled_again_with_a_warning(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    expected, backend = mkf(tiny_bundle)
    assert backend.cache.folder
    (entry,) = backend.cache.folder.glob("mkf-*")
    damage(entry)
    found, backend = mkf(tiny_bundle)
    assert equal(found, expected) and (backend.cache.found, backend.cache.stored) == (0, 1)
    assert caplog.text.count("cannot be used") == 1 and str(entry) in caplog.text
    found, backend = mkf(tiny_bundle)
    assert equal(found, expected) and backend.cache.found == 1
    assert len(caplog.records) == 1


def test_another_cpu_has_networks_of_its_own(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Virtual machines on different CPUs may give them one name."""
    _, here = mkf(tiny_bundle)
    monkeypatch.setattr(openvino, "instructions", lambda: "avx512_vnni")
    _, there = mkf(tiny_bundle)
    assert there.cache.folder != here.cache.folder and there.cache.stored == 1


_START = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_openvino_cache import mkf
outputs, backend = mkf(Path({bundle!r}))
print({{name: float(value.sum()) for name, value in sorted(outputs.items())}})
"""


def test_two_processes_that_start_at_once_both_work(tiny_bundle: Path) -> None:
    path = [str(Path(__file__).parent), *sys.path]
    command = [sys.executable, "-c", _START.format(path=path, bundle=str(tiny_bundle))]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0] == results[1] and "cannot be" not in results[0][1]
    _, backend = mkf(tiny_bundle)
    assert backend.cache.found == 1 and backend.cache.folder
    assert [entry.name[:4] for entry in backend.cache.folder.iterdir()] == ["mkf-"]


def test_a_folder_that_cannot_be_written_is_one_warning(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAGICFUSE_CACHE", str(tmp_path / "file"))
    Sampler(Bundle.load(tiny_bundle), OpenVinoBackend())
    (record,) = caplog.records
    assert f"cannot be kept in '{tmp_path}/file/openvino/" in record.getMessage()
    assert "Not a directory; every start compiles them again" in record.getMessage()


def test_a_folder_that_cannot_be_looked_into_is_one_warning(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that is too long fails in the same place as a folder of another user."""
    monkeypatch.setenv("MAGICFUSE_CACHE", f"/{300 * 'x'}")
    expected, backend = mkf(tiny_bundle)
    assert expected and not backend.cache.stored
    (record,) = caplog.records
    assert "every start compiles them again" in record.getMessage()


def test_other_users_may_read_compiled_networks_as_the_umask_says(tiny_bundle: Path) -> None:
    before = os.umask(0o022)
    try:
        _, backend = mkf(tiny_bundle)
    finally:
        os.umask(before)
    assert backend.cache.folder
    (entry,) = backend.cache.folder.glob("mkf-*")
    assert oct(entry.stat().st_mode & 0o777) == "0o755"
    assert {oct(p.stat().st_mode & 0o777) for p in entry.iterdir()} == {"0o644"}


def test_a_full_disk_is_one_warning(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected, _ = mkf(tiny_bundle)
    shutil.rmtree(cache_folder())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        found, backend = mkf(tiny_bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert equal(found, expected)
    assert backend.cache.folder and not list(backend.cache.folder.iterdir())
    assert len(caplog.records) == 1 and "cannot be kept in" in caplog.text


def test_what_a_killed_process_left_is_removed(tiny_bundle: Path) -> None:
    _, backend = mkf(tiny_bundle)
    assert backend.cache.folder
    old, new = (f".mkf-0.{digit * 32}" for digit in "ab")
    for name, age in ((old, 1e4), (new, 1)):
        (backend.cache.folder / name).mkdir()
        then = (backend.cache.folder / name).stat().st_mtime - age
        os.utime(backend.cache.folder / name, (then, then))
    shutil.rmtree(next(backend.cache.folder.glob("mkf-*")))
    mkf(tiny_bundle)
    assert not (backend.cache.folder / old).exists()
    assert (backend.cache.folder / new).exists()


def test_folders_that_others_made_stay(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAGICFUSE_CACHE may be a disk's root, with an `openvino` of the user's own."""
    monkeypatch.setenv("MAGICFUSE_CACHE", str(tmp_path))
    others = [tmp_path / "openvino" / name for name in ("models/yolo", "src/.git")]
    for folder in others:
        folder.mkdir(parents=True)
        then = folder.stat().st_mtime - 100 * 24 * 3600
        os.utime(folder, (then, then))
    mkf(tiny_bundle)
    assert list(tmp_path.glob("openvino/*/mkf-*")), "a network was kept"
    assert all(folder.exists() for folder in others)


def test_what_nobody_has_used_for_months_goes_when_a_network_is_kept(tiny_bundle: Path) -> None:
    _, backend = mkf(tiny_bundle)
    assert backend.cache.folder
    used = next(backend.cache.folder.glob("mkf-*"))
    of_old_version = backend.cache.folder.parent / "2024.1.0-00000000" / "mkf-0"
    of_other_bundle, recent = backend.cache.folder / "mkf-1", backend.cache.folder / "mkf-2"
    for folder, days in ((used, 100), (of_old_version, 100), (of_other_bundle, 100), (recent, 80)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "SHA256SUMS").touch()
        then = folder.stat().st_mtime - days * 24 * 3600
        os.utime(folder, (then, then))
    mkf(tiny_bundle)  # found, so it is in use
    x = ops.parameter([1], np.float32)
    backend.cache.compile("other", lambda: ov.Model([ops.exp(x)], [x]), {})
    assert used.exists() and recent.exists()
    assert not of_other_bundle.exists() and not of_old_version.exists()
