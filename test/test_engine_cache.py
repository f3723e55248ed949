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

import hashlib
import json
import multiprocessing
import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magicfuse_ros.backends.engine_cache import (
    PASSES,
    EngineCache,
    EngineKey,
    EngineManifest,
    Hit,
    Miss,
    cache_folder,
    read_checked,
    write_checked,
)
from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.errors import EngineError, MagicFuseError

pytestmark = pytest.mark.usefixtures("own_cache")

ENGINE = bytes(range(256)) * 40


def key_of(**changes: str) -> EngineKey:
    tensor = TensorSpec(name="z", dtype="float32", shape=(1, 4))
    spec = NetworkSpec(
        file="ckg.onnx", sha256="a" * 64, inputs=(tensor,), outputs=(tensor,), parameters=0, gflop=0
    )
    key = EngineKey.of(spec, "tensorrt_rtx", "1.7.1", "sm_89", "fp16")
    return EngineKey.model_validate({**key.model_dump(), **changes})


def never() -> None:
    raise AssertionError("had to wait")


def miss(cache: EngineCache, key: EngineKey) -> Miss:
    found = cache.lookup(key)
    assert isinstance(found, Miss)
    return found


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    cache = EngineCache(tmp_path)
    cache.store(key_of(), ENGINE)
    return cache


def test_what_was_stored_is_found_with_a_manifest_beside_it(cache: EngineCache) -> None:
    assert cache.lookup(key_of()) == Hit(ENGINE)
    path = cache.path(key_of())
    manifest = EngineManifest.model_validate_json(path.with_suffix(".json").read_bytes())
    assert manifest.key == key_of()
    assert manifest.engine_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".engine", ".json"]


def test_what_one_user_built_others_may_read_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        cache = EngineCache(tmp_path / "cache")
        cache.store(key_of(), ENGINE)
    finally:
        os.umask(before)
    path = cache.path(key_of())
    modes = {oct(p.stat().st_mode & 0o777) for p in (path, path.with_suffix(".json"))}
    assert modes == {"0o640"}


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({"version": "1.8.0"}, "stale", "version 1.7.1, now 1.8.0"),
        ({"onnx_sha256": "b" * 64}, "stale", "onnx_sha256 aaaaaaaaaaaa..., now bbbbbbbbbbbb..."),
        ({"magicfuse_ros": "9"}, "stale", "magicfuse_ros .*, now 9"),
        ({"passes": "1000"}, "stale", f"passes {PASSES}, now 1000"),
        ({"device": "sm_89 Orin, Jetson Orin Nano"}, "absent", "now sm_89 Orin, Jetson Orin Nano"),
        ({"precision": "fp32"}, "absent", "in fp32; .* precision fp16, now fp32"),
        ({"device": "sm_120"}, "absent", "for sm_120 .* device sm_89, now sm_120"),
        ({"backend": "tensorrt"}, "absent", "no engine of ckg.onnx was built for sm_89 in fp16$"),
        ({"network": "ikr.onnx"}, "absent", "no engine of ikr.onnx was built"),
    ],
)
def test_another_build_is_no_hit_and_the_difference_is_named(
    cache: EngineCache, changes: dict[str, str], state: str, reason: str
) -> None:
    found = miss(cache, key_of(**changes))
    assert found.state == state
    assert re.search(reason, found.reason), found.reason


def test_the_nearest_of_several_builds_is_named(cache: EngineCache) -> None:
    cache.store(key_of(device="sm_75", precision="fp32", version="1.0"), ENGINE)
    assert miss(cache, key_of(version="1.8")).reason.endswith("differs: version 1.7.1, now 1.8")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(ENGINE) - 1), bit=st.integers(0, 7))
def test_a_changed_bit_is_seen(cache: EngineCache, position: int, bit: int) -> None:
    changed = bytearray(ENGINE)
    changed[position] ^= 1 << bit
    cache.path(key_of()).write_bytes(changed)
    found = miss(cache, key_of())
    assert found.state == "damaged" and "SHA-256" in found.reason


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(ENGINE) - 1))
def test_a_truncated_engine_is_seen(cache: EngineCache, length: int) -> None:
    cache.path(key_of()).write_bytes(ENGINE[:length])
    found = miss(cache, key_of())
    assert found.state == "damaged" and f"it has {length} bytes" in found.reason


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 1}'])
def test_a_damaged_manifest_is_seen_and_a_new_build_repairs_it(
    cache: EngineCache, content: bytes
) -> None:
    manifest = cache.path(key_of()).with_suffix(".json")
    manifest.write_bytes(content)
    found = miss(cache, key_of())
    assert found.state == "damaged" and "manifest" in found.reason
    cache.store(key_of(), ENGINE)
    assert cache.lookup(key_of()) == Hit(ENGINE)


def test_an_engine_under_the_name_of_another_is_refused(cache: EngineCache) -> None:
    other = key_of(version="1.8.0")
    for suffix in (".engine", ".json"):
        source = cache.path(key_of()).with_suffix(suffix)
        cache.path(other).with_suffix(suffix).write_bytes(source.read_bytes())
    found = miss(cache, other)
    assert found.state == "damaged" and "version 1.7.1, now 1.8.0" in found.reason


def test_a_missing_engine_beside_its_manifest(cache: EngineCache) -> None:
    cache.path(key_of()).unlink()
    assert "No such file" in miss(cache, key_of()).reason


def test_the_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("MAGICFUSE_CACHE", "/mine")
    assert cache_folder() == Path("/mine")
    monkeypatch.delenv("MAGICFUSE_CACHE")
    assert cache_folder() == Path("/xdg/magicfuse")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/driver")
    assert cache_folder() == Path("/home/driver/.cache/magicfuse")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert cache_folder() == Path("/home/driver/cache/magicfuse")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file")
    cache = EngineCache(tmp_path)
    with pytest.raises(
        EngineError, match=r"cannot write engine .*ckg-.*: Not a directory; MAGICFUSE_CACHE"
    ):
        cache.store(key_of(), ENGINE)
    with pytest.raises(MagicFuseError, match="cannot write"), cache.locked(key_of(), never):
        pass


def _store_with_a_full_disk(root: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        EngineCache(root).store(key_of(), ENGINE)
    except EngineError as error:
        os._exit(0 if "cannot write engine" in str(error) else 3)
    os._exit(4)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the file size simulates it; it fails at the same call."""
    process = multiprocessing.get_context("fork").Process(
        target=_store_with_a_full_disk, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    assert list((tmp_path / "engines" / "tensorrt_rtx").iterdir()) == []


def _store_for_ever(root: Path, number: int) -> None:
    cache = EngineCache(root)
    while True:
        with cache.locked(key_of(), lambda: None):
            cache.store(key_of(), bytes([number % 256]) * 200_000)
        number += 1
        time.sleep(0.002)


def test_writers_at_once_and_writers_killed_in_the_middle_never_make_a_false_engine(
    tmp_path: Path,
) -> None:
    cache = EngineCache(tmp_path)
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_store_for_ever, args=(tmp_path, n)) for n in (0, 100)]
    hits: list[Hit] = []
    try:
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 30
        while len(hits) < 20 and time.monotonic() < deadline:
            found = cache.lookup(key_of())  # without the lock, like a vehicle that loads
            if isinstance(found, Hit):
                hits.append(found)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert hits
    assert all(len(set(h.engine)) == 1 and len(h.engine) == 200_000 for h in hits)
    # The lock went with them; what they left is either complete or no engine, and is repaired.
    with cache.locked(key_of(), never):
        found = cache.lookup(key_of())
        assert isinstance(found, Hit) or found.state == "absent"
        cache.store(key_of(), ENGINE)
    assert cache.lookup(key_of()) == Hit(ENGINE)
    names = [path.name for path in cache.path(key_of()).parent.iterdir()]
    assert sorted(Path(name).suffix for name in names) == [".engine", ".json", ".lock"]


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_kill_between_any_two_writes_leaves_no_engine_or_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    cache = EngineCache(tmp_path)
    cache.store(key_of(), b"old")
    real, left = os.replace, [writes]

    def replace(source: str, target: Path) -> None:
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        real(source, target)

    process_id = os.fork()
    if not process_id:
        monkeypatch.setattr(os, "replace", replace)
        cache.store(key_of(), ENGINE)
        os._exit(0)
    os.waitpid(process_id, 0)
    found = cache.lookup(key_of())
    assert found == Hit(ENGINE) if writes == 2 else isinstance(found, Miss)
    cache.store(key_of(), ENGINE)
    assert sorted(p.suffix for p in cache.path(key_of()).parent.iterdir()) == [".engine", ".json"]


def test_the_second_of_two_builders_is_told_that_it_waits(cache: EngineCache) -> None:
    waited = []
    with cache.locked(key_of(), never):
        process_id = os.fork()
        if not process_id:
            with cache.locked(key_of(), lambda: waited.append(1)):
                os._exit(len(waited))
        time.sleep(0.2)
    assert os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) == 1


def test_an_engine_of_a_release_that_did_not_record_its_passes_is_named(
    cache: EngineCache,
) -> None:
    path = cache.path(key_of()).with_suffix(".json")
    manifest = json.loads(path.read_text())
    del manifest["key"]["passes"]
    path.write_text(json.dumps(manifest))
    assert f"passes 1, now {PASSES}" in miss(cache, key_of()).reason


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=50), data=st.data())
def test_a_file_beside_an_engine_is_read_only_if_it_is_whole(
    tmp_path: Path, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path / "ckg.compiled"
    write_checked(path, content)
    assert read_checked(path) == content
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    for damaged in (
        whole[:position],
        whole + b"\0",
        whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="changed or damaged"):
            read_checked(path)
